"""What structure says of a layer against the derivative of the memory after a token by the memory before it."""

import functools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.models import HybridConfig, HybridLM, KeyValue, Memory
from solomonic.models.memory import StoredTokens, tensors
from solomonic.probes import layer_influence, structure, structures

#: Tokens of the text before; one more ends no chunk of 4 (21 = 5 * 4 + 1), and all registers are full.
LENGTH, WINDOW, TOKEN = 20, 4, 5

LAYERS = {
    "mamba2": {"pattern": "M2"},
    "window": {"pattern": "SWA", "swa_window": WINDOW},
    "gdn": {"pattern": "GDN"},
    "gdn, beta up to 2": {"pattern": "GDN", "gdn_allow_neg_eigval": True, "gdn_conv_bias": True},
    "gka": {"pattern": "GKA"},
    "gka, gram kept": {"pattern": "GKA", "gka_decay_gram": False, "gka_num_iter": 3},
    "bmojo-f": {"pattern": "BMF"},
    "bmojo-f, gdn": {"pattern": "BMF", "ssm_mixer": "gdn"},
    "bmojo-f, gka": {"pattern": "BMF", "ssm_mixer": "gka", "tie_attn_weights": False},
    "bmojo": {"pattern": "BMO"},
    "bmojo, gdn": {"pattern": "BMO", "ssm_mixer": "gdn", "gdn_allow_neg_eigval": True},
    "bmojo, gka": {"pattern": "BMO", "ssm_mixer": "gka"},
    "bmojo, paper": {"pattern": "BMO", "fading_tokens": 1, "bmojo_positions": "none"},
    "bmojo, two held": {"pattern": "BMO", "fading_tokens": 2, "innovation_norm": "random"},
    "bmojo, none fading": {"pattern": "BMO", "fading_tokens": 0},
    "bmojo, none stored": {"pattern": "BMO", "eidetic_tokens": 0},
}


STORING = [n for n, options in LAYERS.items() if options["pattern"] == "BMO" and options.get("eidetic_tokens") != 0]


def model_of(name: str, rng: int = 0, **changes) -> HybridLM:
    """A layer of 2 heads of 4 in float64, its gates far from what their biases say."""
    options = {
        "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 4, "bmojo_window": WINDOW, "eidetic_tokens": 3, "innovation_span": 2, **LAYERS[name], **changes,
    }  # fmt: skip
    model = HybridLM(HybridConfig(**options), rng=rng).double().requires_grad_(False)
    for key, value in model.named_parameters():
        if key.endswith(("b_proj.weight", "gk_proj.weight", "a_proj.weight")):
            value.mul_(4.0)
        elif "conv1d.weight" in key or "k_proj" in key or "v_proj" in key:
            value.mul_(3.0)
    return model


def text(length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    """Random tokens, the last three of them the one that follows, so that its key is that of a text of it alone."""
    ids = torch.randint(16, (1, length), generator=torch.Generator().manual_seed(seed))
    ids[:, -3:] = TOKEN
    return ids


def leaves(memory: Memory) -> list[torch.Tensor]:
    return [t for value in memory.layers[0].values() for t in tensors(value) if t.is_floating_point()]


def rows_of(memory: Memory, config: HybridConfig) -> dict[str, torch.Tensor]:
    """Every register [slots, numbers], the newest token first, and the state [1, numbers]."""
    out = {}
    for part, value in memory.layers[0].items():
        if isinstance(value, StoredTokens):
            stored = int((value.admitted > 0).sum())
            both = torch.cat([value.key.flatten(2), value.value.flatten(2)], 2)[0]
            out["eidetic"], out["waiting"] = both[:stored], both[stored:].flip(0)
            if config.innovation_norm != "random":
                out["past"] = value.past[0].flip(0)
        elif isinstance(value, KeyValue):
            # Frozen fading tokens have no order by lag: those of this chunk first.
            rows = torch.cat([value.key.flatten(2), value.value.flatten(2)], 2)[0]
            frozen = part == "fading_tokens" and config.fading_tokens not in (None, WINDOW)
            out[part] = rows if frozen else rows.flip(0)
        elif part == "state":
            out[part] = torch.cat([t.flatten(1) for t in tensors(value)], 1)
        else:
            out[part] = value[0].flip(0)
    return out


@functools.cache
def derivative(name: str, length: int = LENGTH, seed: int = 0, only: str = "") -> dict[tuple[str, str], np.ndarray]:
    """Blocks [slots, numbers, slots, numbers] of d memory after / d memory before, by (to, from)."""
    model, follow = model_of(name), torch.tensor([[TOKEN]])
    memory = model(text(length, seed)).memory
    layer = {part: _leaf(value) for part, value in memory.layers[0].items()}
    start = Memory((layer,), memory.position)
    source = leaves(start)
    before, after = rows_of(start, model.config), rows_of(model(follow, memory=start).memory, model.config)
    blocks = {}
    # Gradients come by leaf; the same rearrangement that makes rows of the memory makes rows of a gradient.
    for to, value in after.items():
        if only not in to:
            continue
        rows = []
        for entry in value.flatten():
            found = torch.autograd.grad(entry, source, retain_graph=True, allow_unused=True) if entry.requires_grad \
                else [None] * len(source)  # fmt: skip
            grads = iter([torch.zeros_like(t) if g is None else g for g, t in zip(found, source, strict=True)])
            same = {part: _like(each, grads) for part, each in layer.items()}
            rows.append(rows_of(Memory((same,), memory.position), model.config))
        for part in before:
            blocks[to, part] = np.stack([r[part].numpy() for r in rows]).reshape(*value.shape, *before[part].shape)
    return blocks


def _leaf(value):
    """The same part, of which derivatives are taken."""
    floats = [t.detach().clone().requires_grad_(True) for t in tensors(value) if t.is_floating_point()]
    return _like(value, iter(floats))


def _like(value, floats):
    """The same part with other numbers."""
    if isinstance(value, torch.Tensor):
        return next(floats)
    return type(value)(*(next(floats) if t.is_floating_point() else t for t in value))


def shift(length: int, numbers: int, rows: int | None = None) -> np.ndarray:
    """The block of a register that shifts, from ``length`` slots to ``rows``."""
    block = np.eye(rows or length, length, -1)
    return np.einsum("ab,ij->aibj", block, np.eye(numbers))


def found_by(model: HybridLM, window: int = WINDOW):
    """The structure at the gates of the token that follows the text."""
    return structure(model, 0, ids=torch.full((1, 12), TOKEN), window=window, quantiles=[0.5])


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "window"])
def test_the_spectrum_of_the_state_is_that_of_the_derivative(name):
    """With multiplicities: each slot stands for `copies` numbers that move as it does."""
    model = model_of(name)
    found = found_by(model)
    block = derivative(name)["state", "state"][0, :, 0]
    np.testing.assert_allclose(block, block.T, atol=1e-14)  # symmetric, so diagonalizable
    own = found.block.to_numpy() == "state"
    said = np.repeat(np.diag(found.transition)[own], found.copies.to_numpy()[own])
    assert said.size == block.shape[0]
    np.testing.assert_allclose(np.linalg.eigvalsh(block), np.sort(said), rtol=0, atol=1e-14)  # 2.0e-15 was measured
    if "beta" in found and model.config.gdn_allow_neg_eigval:
        assert float(found.along_key.min()) < -0.1, "a test of negative eigenvalues without one"


@pytest.mark.parametrize("name", ["gdn", "gdn, beta up to 2", "bmojo, gdn"])
def test_a_delta_rule_acts_along_its_key(name):
    """The eigenvector of the other eigenvalue is the key of the token, and `kept` is what lies across it."""
    model = model_of(name)
    taps = {}
    memory = model(text()).memory
    model(torch.tensor([[TOKEN]]), memory=memory, record=lambda layer, key, value: taps.__setitem__(key, value))
    block = derivative(name)["state", "state"][0, :, 0].reshape(2, 4, 4, 2, 4, 4)
    found = found_by(model)
    key = taps["B"][0, 0, 0].numpy()
    for head in range(2):
        own = block[head, :, 0, head, :, 0]
        # 3.3e-16 was measured.
        np.testing.assert_allclose(own @ key, float(found.along_key[0, head]) * key, atol=1e-14)
        across = np.linalg.svd(key[None])[2][1:]
        np.testing.assert_allclose(own @ across.T, float(found.decay[0, head]) * across.T, atol=1e-14)
        # The token writes across nothing.
        slots = dict(zip(found["to"].values.tolist(), found.input.values.tolist(), strict=True))
        assert slots[f"state[{head}].kept"] == 0


@pytest.mark.parametrize("name", LAYERS)
def test_every_other_block_is_what_the_matrix_says(name):
    """At a token after which nothing is refreshed: registers shift or hold to the last bit; zero blocks are zero."""
    model = model_of(name)
    blocks = derivative(name)
    found = found_by(model)
    rows = np.array([each.split("[")[0] for each in found["to"].values])
    A = found.transition.to_numpy()
    assert {part for part, _ in blocks} == set(rows)
    for (to, start), block in blocks.items():
        own = A[np.ix_(rows == to, rows == start)]
        if to == "past":
            assert not block.any()  # a test decides with it, and has no gradient: see below
        elif to == start and to != "state":
            if to == "waiting":  # it fills up between refreshes: by lag it is a shift all the same
                assert block.shape[0] == block.shape[2] + 1
                np.testing.assert_array_equal(block, shift(block.shape[2], block.shape[1], block.shape[0]))
                assert block.shape[0] <= own.shape[0]
                np.testing.assert_array_equal(own, np.eye(len(own), k=-1))
            else:
                assert block.shape[0] == len(own)
                np.testing.assert_array_equal(block, np.einsum("ab,ij->aibj", own, np.eye(block.shape[1])))
        elif to != start and not own.any():
            assert not block.any(), (to, start)
        elif to != start:
            # A slot that the matrix does not feed is not fed, and one that it feeds is.
            fed = np.abs(block).sum((1, 2, 3)) > 0 if to != "state" else np.array([block.any()])
            expected = np.abs(own).sum(1) > 0 if to != "state" else np.array([True])
            np.testing.assert_array_equal(fed, expected[: fed.size], err_msg=f"{to} from {start}")


@pytest.mark.parametrize("name", ["bmojo", "bmojo, gdn", "bmojo, gka", "bmojo, none fading"])
def test_the_innovation_test_sees_the_newest_output(name):
    """By differences: its register has no gradient. What feeds it is what the matrix says."""
    model = model_of(name)
    memory, follow = model(text()).memory, torch.tensor([[TOKEN]])
    found = found_by(model)
    slots = np.array([each.split("[")[0] for each in found["to"].values])
    base = rows_of(model(follow, memory=memory).memory, model.config)["past"]
    for part in ("conv", "state", "window", "fading_tokens", "eidetic"):
        if part not in memory.layers[0]:
            continue
        value = memory.layers[0][part]
        other = value + 0.1 if isinstance(value, torch.Tensor) else type(value)(
            *(t + 0.1 if t.is_floating_point() and field != "past" else t
              for field, t in zip(value._fields, value, strict=True)))  # fmt: skip
        moved = rows_of(model(follow, memory=memory.set(0, part, other)).memory, model.config)["past"] - base
        fed = found.transition.to_numpy()[np.ix_(slots == "past", slots == part)].any(1)
        np.testing.assert_array_equal(moved.abs().sum(1).numpy() > 0, fed, err_msg=part)
    stored = memory.layers[0]["eidetic"]
    other = stored._replace(past=stored.past + torch.linspace(0, 1, stored.past.numel()).view(stored.past.shape))
    moved = rows_of(model(follow, memory=memory.set(0, "eidetic", other)).memory, model.config)["past"] - base
    own = found.transition.to_numpy()[np.ix_(slots == "past", slots == "past")]
    np.testing.assert_allclose(moved, own @ (other.past - stored.past)[0].flip(0).numpy(), atol=1e-14)


@pytest.mark.parametrize("name", STORING)
def test_at_the_end_of_a_chunk_stored_tokens_are_selected(name):
    """The other mode of the switched system: at most a single 1 in a row, from a stored or a waiting token."""
    admitted = 0
    for seed in range(3):
        blocks = derivative(name, LENGTH - 1, seed, "eidetic")
        parts = [blocks["eidetic", start] for start in ("eidetic", "waiting")]
        chosen = np.concatenate([part[:, 0, :, 0] for part in parts], 1)
        assert set(np.unique(chosen)) <= {0.0, 1.0}
        assert (chosen.sum(1) == 1).all()
        assert (chosen.sum(0) <= 1).all()
        for part in parts:
            np.testing.assert_array_equal(part, np.einsum("ab,ij->aibj", part[:, 0, :, 0], np.eye(part.shape[1])))
        assert not any(blocks["eidetic", start].any() for start in ("conv", "state", "window"))
        admitted += int(parts[1].any())
    assert admitted, "no refresh admitted anything"


@pytest.mark.parametrize("name", LAYERS)
def test_a_register_is_empty_after_as_many_tokens_as_its_index_says(name):
    """And at some token not one sooner; what is stored outlasts any number."""
    model = model_of(name)
    found = structure(model, 0)
    index = dict(zip(found.part.values.tolist(), found["index"].values.tolist(), strict=True))
    left: dict[tuple[str, int], bool] = {}
    for phase in range(WINDOW):
        memory = model(text(LENGTH + phase)).memory
        start = Memory(({k: _leaf(v) for k, v in memory.layers[0].items()},), memory.position)
        for part, n in index.items():
            for count in {n - 1, n} if n > 0 else {4 * WINDOW}:
                follow = torch.full((1, count), TOKEN)
                after = model(follow, memory=start).memory if count else start
                outs = [t for t in tensors(after.layers[0][part]) if t.is_floating_point() and t.requires_grad]
                loss = sum((t * torch.linspace(1, 2, t.numel()).view(t.shape)).sum() for t in outs)
                given = [t for t in tensors(start.layers[0][part]) if t.is_floating_point()]
                grads = torch.autograd.grad(loss, given, allow_unused=True) if outs else [None]
                alive = any(g is not None and bool(g.any()) for g in grads)
                left[part, count] = left.get((part, count), False) or alive
    for part, n in index.items():
        if n > 0:
            assert left[part, n - 1], f"{part} is gone before {n} tokens"
            assert not left[part, n], f"{part} is still there after {n} tokens"
        else:
            assert left[part, 4 * WINDOW], part


@pytest.mark.parametrize("name", LAYERS)
def test_copies_are_all_numbers_of_a_full_memory(name):
    """With the bookkeeping of stored tokens left out: a position, a score and a time for each."""
    model = model_of(name)
    found = structure(model, 0, window=WINDOW)
    memories = [model(text(LENGTH + phase)).memory for phase in range(WINDOW)]
    held = {
        part: max(sum(t.numel() for t in tensors(m.layers[0][part])) for m in memories) for part in found.part.values
    }
    for part, size in held.items():
        assert int(found.scalars.sel(part=part)) == size
    assert found.attrs["order"] == sum(held.values())
    counted = int(found.copies.sum())
    if found.attrs["switched"] == "held" and model.config.fading_tokens:
        # Frozen fading tokens of the next chunk are gathered at other tokens than this one.
        counted += (model.config.fading_tokens - 1) * 2 * 4
    books = 3 * (model.config.eidetic_tokens + 2 * WINDOW - 2) if "eidetic" in held else 0
    assert counted + books == found.attrs["order"]


@pytest.mark.parametrize(
    ("fading", "stored", "eidetic", "whole"),
    [(0, 0, WINDOW - 1, WINDOW - 1), (1, 0, WINDOW + 3, -1), (2, 0, WINDOW + 4, -1), (WINDOW, 0, 2 * WINDOW + 2, -1),
     (0, 2, -1, -1), (None, 2, -1, -1)],
)  # fmt: skip
@pytest.mark.parametrize("ssm", ["mamba2", "gdn", "gka"])
def test_reach_is_how_far_a_layer_sees_without_its_state(ssm, fading, stored, eidetic, whole):
    """Decays of 0 leave the registers alone; the last query of a chunk sees farthest."""
    model = model_of("bmojo", ssm_mixer=ssm, fading_tokens=fading, eidetic_tokens=stored)
    found = structure(model, 0)
    assert (found.attrs["eidetic_reach"], found.attrs["reach"]) == (eidetic, whole)
    mixer = model.model.layers[0].mixer.ssm  # type: ignore[union-attr]
    mixer.A_log.fill_(5.0)  # type: ignore[union-attr]
    mixer.dt_bias.fill_(9.0)  # type: ignore[union-attr]
    ids = torch.randint(16, (1, 36), generator=torch.Generator().manual_seed(0))
    seen = layer_influence(model, 0, ids, projections=0).influence_mean.isel(path=0)
    last = int(seen.lag[seen > 1e-6 * seen.max()].max())
    assert last == eidetic if eidetic >= 0 else last > 2 * WINDOW + 2


@pytest.mark.parametrize("name", LAYERS)
def test_heads_one_by_one_have_the_same_modes(name):
    model = model_of(name)
    ids = torch.full((1, 12), TOKEN)
    whole, each = (
        structure(model, 0, ids=ids, window=WINDOW, quantiles=[0.5]),
        structures(model, ids=ids, window=WINDOW),
    )
    checks = json.loads(whole.attrs["checks"])
    assert checks["block_triangular"]
    assert checks["spectrum_error"] < 1e-10
    assert float(each.spectrum_error.max()) < 1e-10
    small = each.along_key.fillna(1.0)  # a mode of 0.07 beside a chain of 11 is not told from 0, and it is said
    assert (each.certified == 1).where(np.abs(small) > 0.2, True).all()
    for variable in ("decay", "along_key", "gram_decay"):
        if variable in whole:
            np.testing.assert_array_equal(each[variable][0], whole[variable][0])
        else:
            assert each[variable].isnull().all()
    assert int(each.full_index[0, 0]) == int(each.nilpotent_index[0, 0]) == whole.attrs["nilpotent_index"]
    assert int(each.full_order[0, 0]) == int(each.nilpotent_order[0, 0]) == whole.attrs["nilpotent_order"]
    assert int(each.held[0, 0]) == int(np.isclose(whole.eigenvalue, 1, atol=1e-9).sum()) - _sums(model)


@pytest.mark.parametrize("pattern", ["GDN", "BMF", "BMO"])
def test_a_write_of_strength_one_leaves_nothing_under_the_key(pattern):
    """From the biases alone a beta of up to 2 is 1: that mode is deadbeat, and passes by the state as D does."""
    model = model_of("gdn, beta up to 2", pattern=pattern, ssm_mixer="gdn")
    found, each = structure(model, 0, window=WINDOW), structures(model, window=WINDOW)
    np.testing.assert_array_equal(found.beta, 1.0)
    np.testing.assert_array_equal(found.along_key, 0.0)
    assert found["at"].values.tolist() == ["bias"]
    registers = {"GDN": 3, "BMF": 3 + 3 * WINDOW, "BMO": 3 + 3 * WINDOW + 2 * WINDOW - 2 + 2}[pattern]
    assert found.attrs["nilpotent_order"] == registers + 2
    assert (each.nilpotent_order == registers + 1).all()
    assert (each.full_order == registers + 1).all()
    index = 4 if pattern == "GDN" else 3 + 2 * WINDOW
    assert (each.nilpotent_index == index).all()
    assert (each.full_index == index).all()


def _sums(model: HybridLM) -> int:
    """Gram matrices that do not decay have eigenvalues 1 too."""
    return 0 if model.config.gka_decay_gram else model.config.num_attention_heads


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 6), fading=st.integers(0, 6) | st.none(), stored=st.integers(0, 9), span=st.integers(1, 7),
    norm=st.sampled_from(["l2", "relative", "random"]), ssm=st.sampled_from(["mamba2", "gdn", "gka"]),
    window=st.integers(1, 5),
)  # fmt: skip
def test_any_window_and_any_numbers_of_tokens(width, fading, stored, span, norm, ssm, window):
    """Sizes are those of a memory that is full; the matrix is block triangular with the spectrum that it says."""
    model = model_of(
        "bmojo", bmojo_window=width, fading_tokens=None if fading is None else min(fading, width),
        eidetic_tokens=stored, innovation_span=span, innovation_norm=norm, ssm_mixer=ssm,
    )  # fmt: skip
    found, each = structure(model, 0, window=window), structures(model, window=window)
    checks = json.loads(found.attrs["checks"])
    assert checks["block_triangular"]
    assert checks["spectrum_error"] < 1e-8
    assert float(each.spectrum_error.max()) < 1e-8
    start, sizes = model(text(4 * width + max(stored, span))).memory, []
    for _ in range(width):
        start = model(torch.tensor([[TOKEN]]), memory=start).memory
        sizes.append([sum(t.numel() for t in tensors(v)) for v in start.layers[0].values()])
    np.testing.assert_array_equal(found.scalars, np.max(sizes, 0))
    assert found.part.values.tolist() == list(start.layers[0])
    assert found.attrs["order"] == found.scalars.sum()
    assert (found.attrs["eidetic_reach"] == -1) == (stored > 0)
