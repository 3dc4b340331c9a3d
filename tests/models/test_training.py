"""Training: it learns, repeats itself, and survives being stopped."""

import json
import logging
import math

import pytest
import torch

from solomonic.models import HybridConfig, Recipe, load, train
from solomonic.models.muon import Muon, orthogonalised

from .small import small_config

RECIPE = Recipe(steps=12, warmup=2, batch_size=2, context=16, lr=1e-2)


def batches(step):
    return torch.randint(29, (2, 17), generator=torch.Generator().manual_seed(step))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(small_config("hybrid"), batches, tmp_path_factory.mktemp("run"), RECIPE, progress=False)


def _same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns(tmp_path):
    config = small_config("hybrid")
    run = train(config, lambda step: torch.arange(17)[None] % 5, tmp_path, Recipe(steps=60, lr=1e-2, warmup=5),
                progress=False)  # fmt: skip
    assert run.losses[0] > 2
    assert run.losses[-1] < 0.1
    again = load(tmp_path)
    assert _same(again, run.model)


def test_deterministic_for_a_seed(whole, tmp_path):
    again = train(small_config("hybrid"), batches, tmp_path, RECIPE, progress=False)
    assert again.losses == whole.losses
    assert _same(again.model, whole.model)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_stopped_and_resumed(whole, tmp_path, error):
    def failing(step):
        if step == 7:
            raise error("stopped here")
        return batches(step)

    with pytest.raises(error):
        train(small_config("hybrid"), failing, tmp_path, RECIPE, save_every=3, progress=False)
    kept = sorted(p.name for p in tmp_path.iterdir())
    # Ctrl-C saves the step it is at; another error leaves the last checkpoint.
    assert kept == ["step-00000007" if error is KeyboardInterrupt else "step-00000006"]
    run = train(small_config("hybrid"), batches, tmp_path, RECIPE, save_every=3, progress=False)
    assert run.losses == whole.losses
    assert _same(run.model, whole.model)


def test_muon_stopped_and_resumed(tmp_path):
    recipe = Recipe(**{**vars(RECIPE), "matrix_lr": 2e-2})
    whole = train(small_config("hybrid"), batches, tmp_path / "whole", recipe, progress=False)

    def failing(step):
        if step == 7:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        train(small_config("hybrid"), failing, tmp_path / "cut", recipe, progress=False)
    run = train(small_config("hybrid"), batches, tmp_path / "cut", recipe, progress=False)
    assert run.losses == whole.losses
    assert _same(run.model, whole.model)
    by_adam = train(small_config("hybrid"), batches, tmp_path / "adam", RECIPE, progress=False)
    assert run.losses[0] == by_adam.losses[0]
    assert run.losses[2] != by_adam.losses[2]


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5), (1, 6)])
def test_muon_moves_along_the_polar_factor(shape):
    gradient = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    singular = torch.linalg.svdvals(orthogonalised(gradient))
    assert ((singular > 0.6) & (singular < 1.3)).all()
    overlap = (orthogonalised(gradient) * (u @ v)).sum() / min(shape)
    assert 0.6 < overlap < 1.3


def test_muon_is_that_of_torch_but_for_its_bfloat16():
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(6, 16, generator=generator)
    moved = []
    for make in (
        lambda p: Muon([p], 0.1, weight_decay=0.1),
        lambda p: torch.optim.Muon([p], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ):
        p = start.clone().requires_grad_()
        optimizer = make(p)
        for seed in range(5):
            p.grad = torch.randn(6, 16, generator=torch.Generator().manual_seed(seed))
            optimizer.step()
        moved.append((p - start).detach())
    assert (moved[0] - moved[1]).norm() < 0.03 * moved[1].norm()


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(whole, tmp_path, monkeypatch):
    import solomonic.models.training as training

    def full(tensors, path, *args, **kwargs):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    calls = []

    def save_file(tensors, path, *args, **kwargs):
        calls.append(path)
        return full(tensors, path) if len(calls) == 2 else original(tensors, path, *args, **kwargs)

    original = training.save_file
    monkeypatch.setattr(training, "save_file", save_file)
    with pytest.raises(OSError, match="No space"):
        train(small_config("hybrid"), batches, tmp_path, RECIPE, save_every=3, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]
    run = train(small_config("hybrid"), batches, tmp_path, RECIPE, save_every=3, progress=False)
    assert run.losses == whole.losses


def test_a_finished_run_is_not_run_again(whole):
    again = train(small_config("hybrid"), lambda step: pytest.fail("no step is left"), whole.folder, RECIPE,
                  progress=False)  # fmt: skip
    assert again.losses == whole.losses
    assert again.seconds == whole.seconds


def test_a_run_that_is_done_early(whole, tmp_path):
    config = small_config("hybrid")

    def failing(step):
        if step == 5:
            raise OSError("stopped here")
        return batches(step)

    options = {"save_every": 3, "progress": False, "done": lambda losses: len(losses) >= 8}
    with pytest.raises(OSError, match="stopped here"):
        train(config, failing, tmp_path, RECIPE, **options)
    run = train(config, batches, tmp_path, RECIPE, **options)
    assert run.losses == whole.losses[:8]
    again = train(config, lambda step: pytest.fail("no step is left"), tmp_path, RECIPE, **options)
    assert again.losses == run.losses
    assert _same(again.model, run.model)


def test_another_recipe_in_the_same_folder(whole):
    with pytest.raises(ValueError, match=r"another recipe \(lr\)"):
        train(small_config("hybrid"), batches, whole.folder, Recipe(**{**vars(RECIPE), "lr": 2e-2}), progress=False)
    with pytest.raises(ValueError, match="another config"):
        train(small_config("mamba2"), batches, whole.folder, RECIPE, progress=False)


def test_a_damaged_checkpoint_says_so(tmp_path):
    train(small_config("mamba2"), batches, tmp_path, RECIPE, progress=False)
    file = tmp_path / "step-00000012" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="step-00000012"):
        train(small_config("mamba2"), batches, tmp_path, RECIPE, progress=False)


def test_validation_curve_and_kept_checkpoints(tmp_path):
    seen = []

    def validate(model):
        seen.append(1)
        return float(len(seen))

    run = train(small_config("mamba2"), batches, tmp_path, RECIPE, save_every=5, keep=None, validate=validate,
                note={"data": "random"}, progress=False)  # fmt: skip
    assert [(step, score) for step, _, score in run.curve] == [(5, 1.0), (10, 2.0), (12, 3.0)]
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == ["step-00000005", "step-00000010", "step-00000012"]
    written = json.loads((tmp_path / "training.json").read_text())
    assert written["note"] == {"data": "random"}
    assert len(written["losses"]) == 12


def test_mixed_precision(tmp_path):
    run = train(small_config("hybrid"), batches, tmp_path, Recipe(**{**vars(RECIPE), "dtype": "bfloat16"}),
                progress=False)  # fmt: skip
    assert all(torch.isfinite(torch.tensor(run.losses)))
    assert next(run.model.parameters()).dtype == torch.float32


def test_a_loss_that_is_not_finite(tmp_path):
    config = small_config("mamba2")
    with pytest.raises(ValueError, match=r"step \d+: loss"):
        train(config, batches, tmp_path, Recipe(steps=30, lr=1e30, warmup=0, clip=1e30), progress=False)


def test_bad_arguments(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out_dir: expected a folder"):
        train(small_config("mamba2"), batches, tmp_path / "file", RECIPE, progress=False)
    for bad in ({"steps": 0}, {"batch_size": -1}, {"context": 1.5}, {"dtype": "int8"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Recipe(**{"steps": 1, **bad})


def test_schedule():
    recipe = Recipe(steps=100, warmup=10, lr=1.0, floor=0.1)
    rates = [recipe.learning_rate(step) for step in range(100)]
    assert rates[9] == rates[10] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert abs(recipe.learning_rate(100) - 0.1) < 1e-12
    logging.getLogger("solomonic").debug("schedule checked")


def test_cooldown():
    short, long = (Recipe(steps=n, warmup=10, lr=1.0, floor=0.1, cooldown=0.5) for n in (100, 200))
    rates = [short.learning_rate(step) for step in range(101)]
    assert rates[10:51] == [1.0] * 41
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert abs(rates[75] - 0.55) < 1e-12
    assert abs(rates[100] - 0.1) < 1e-12
    assert [long.learning_rate(step) for step in range(51)] == rates[:51]  # runs of any length begin alike
    for bad in (0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="cooldown"):
            Recipe(steps=1, cooldown=bad)


def test_configs_are_hashable_enough_to_compare():
    assert small_config("hybrid") == HybridConfig.from_dict(small_config("hybrid").to_dict())
