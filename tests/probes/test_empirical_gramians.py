"""Empirical Gramians against Jacobians written out, and systems that are linear."""

import numpy as np
import pytest
import torch

from solomonic.probes import controllability, empirical_gramians, load_dataset, observability, save_dataset

from .small import small_model, tokens


@pytest.fixture(scope="module")
def tiny():
    return small_model(
        "M2", dtype=torch.float64, hidden_size=8, head_dim=2, num_attention_heads=2, num_key_value_heads=1
    )


def test_all_directions_give_the_whole_spectrum(tiny):
    """The state has 2 * 2 * 2 = 8 numbers: small differences in all directions have the singular values of J."""
    ids = tokens(1, 14)
    found = empirical_gramians(tiny, ids, 0, horizon=5, span=3, directions=99, scales=[1e-4])
    seen = observability(tiny, ids, horizon=5, directions=8, iterations=20)
    values = found.eigenvalue.sel(side="observability").to_numpy()[0]
    np.testing.assert_allclose(values[:8], seen.singular_value[0] ** 2, rtol=1e-5, atol=1e-12)
    moved = controllability(tiny, ids, span=3, directions=8, iterations=20)
    values = found.eigenvalue.sel(side="controllability").to_numpy()[0]
    assert values.size == 24  # of the span's embeddings
    np.testing.assert_allclose(values[:8], moved.singular_value[0] ** 2, rtol=1e-4, atol=1e-10)
    assert np.abs(values[8:]).max() < 1e-8 * values[0]


def test_the_gramian_is_that_of_differences_by_hand(tiny):
    ids = tokens(1, 14)
    found = empirical_gramians(tiny, ids, 0, horizon=4, span=2, directions=8, scales=[0.3, 1.0], rng=0)
    memory = tiny(ids[:, :10]).memory
    h = memory.get(0, "state")
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 8)))
    q = torch.linalg.qr(drawn).Q.T
    for size in (0.3, 1.0):
        rows = []
        for each in q:
            step = size * h.norm() * each.view(h.shape)
            there, back = (tiny(ids[:, 10:], memory=memory.set(0, "state", h + s * step)).logits for s in (1, -1))
            difference = (there - back) / (2 * size * h.norm())
            rows.append((difference - difference.mean(-1, keepdim=True)).flatten())
        expected = torch.stack(rows) @ torch.stack(rows).T
        here = found.gramian.sel(side="observability", scale=size)[:8, :8]
        np.testing.assert_allclose(here, expected, atol=1e-10 * float(expected.max()))


def test_the_deviation_is_of_second_order_and_the_plateau_says_where(tmp_path):
    found = empirical_gramians(
        small_model("M2-M2", dtype=torch.float64), tokens(1, 40), 0, horizon=8, span=8, directions=6,
        scales=[1e-3, 1e-2, 1e-1, 3.0],
    )  # fmt: skip
    deviation = found.deviation.to_numpy()
    np.testing.assert_allclose(deviation[:, 1] / deviation[:, 0], 100, rtol=0.1)
    assert "0.001, 0.01" in found.attrs["plateau_observability"]
    assert "3" not in found.attrs["plateau_controllability"]
    assert (found.skew.diff("scale").isel(scale=slice(0, 2)) > 0).all()
    assert load_dataset(save_dataset(found, tmp_path / "e.nc")).identical(found)


def test_a_state_that_is_not_read_is_not_seen():
    found = empirical_gramians(small_model("BMF", dtype=torch.float64), tokens(1, 30), 0, horizon=6, span=4,
                               directions=3)  # fmt: skip
    assert (found.eigenvalue.sel(side="observability") == 0).all()
    assert (found.deviation.sel(side="observability") == 0).all()


def test_what_it_refuses():
    model = small_model("M2-SWA")
    for call, message in (
        (lambda: empirical_gramians(model, tokens(1, 40), 1), "layer 1"),
        (lambda: empirical_gramians(model, tokens(1, 20), 0), "horizon"),
        (lambda: empirical_gramians(model, tokens(1, 34), 0, horizon=4, span=35), "span"),
        (lambda: empirical_gramians(model, tokens(1, 40), 0, scales=[0.0]), "scales"),
        (lambda: empirical_gramians(model, tokens(1, 40), 0, scales=[]), "scales"),
        (lambda: empirical_gramians(model, tokens(1, 40), 0, directions=0), "directions"),
        (lambda: empirical_gramians(model, tokens(1, 40), 0, tol=2.0), "tol"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
