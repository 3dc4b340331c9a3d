"""model(a + b) = model(b, memory = model(a).memory), at every split, for every mixer, option and dtype."""

import pytest
import torch

from .small import VARIANTS, small_model, tokens

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # of the logits' scale; measured 1e-14 and 3e-6


def _window(model):
    return max(w for w in (model.config.swa_window, model.config.bmojo_window) if w is not None and w < 100)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_split(name, dtype):
    model = small_model(name, dtype=dtype)
    windows = [w for w in (model.config.swa_window, model.config.bmojo_window) if w is not None and w < 100]
    ids = tokens(2, 3 * max(windows, default=6) + 5)
    whole = model(ids)
    scale = whole.logits.abs().max()
    for split in range(1, ids.shape[1]):
        first = model(ids[:, :split])
        rest = model(ids[:, split:], memory=first.memory)
        assert (rest.logits - whole.logits[:, split:]).abs().max() < TOLERANCE[dtype] * scale
        for part in whole.memory.parts():
            ours, theirs = rest.memory.get(part.layer, part.part), whole.memory.get(part.layer, part.part)
            for a, b in zip(ours, theirs, strict=True):
                assert a.shape == b.shape
                assert not a.numel() or (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


@pytest.mark.parametrize("name", VARIANTS)
def test_token_by_token(name):
    model = small_model(name)
    ids = tokens(2, 30)
    whole = model(ids).logits
    memory, logits = None, []
    for t in range(ids.shape[1]):
        out = model(ids[:, t : t + 1], memory=memory)
        memory = out.memory
        logits.append(out.logits)
    assert (torch.cat(logits, 1) - whole).abs().max() < 1e-10 * whole.abs().max()


def test_bfloat16_within_its_rounding():
    for name in VARIANTS:
        model = small_model(name, dtype=torch.bfloat16)
        ids = tokens(1, 24)
        whole = model(ids).logits.float()
        first = model(ids[:, :11])
        rest = model(ids[:, 11:], memory=first.memory).logits.float()
        assert (rest - whole[:, 11:]).abs().max() < 0.1 * whole.abs().max(), name


def test_a_lost_state_breaks_the_law():
    """The defect of published B'MOJO-F decoding: the state is not carried. It shows once fading tokens are read."""
    model = small_model("bmojo-f")
    ids = tokens(1, 24)
    whole = model(ids)
    memory = model(ids[:, :10]).memory
    for layer in range(2):
        memory = memory.set(layer, "state", 0 * memory.get(layer, "state"))
    rest = model(ids[:, 10:], memory=memory)
    error = (rest.logits - whole.logits[:, 10:]).abs().amax((0, 2)) / whole.logits.abs().max()
    window = model.config.bmojo_window
    assert (error[:window] < 1e-12).all()  # fading tokens made after the split are not readable yet
    assert error[window:].max() > 1e-3


def test_gradients_flow_through_the_memory():
    model = small_model("hybrid")
    ids = tokens(1, 20)
    memory = model(ids[:, :9]).memory
    leaf = memory.get(1, "state").clone().requires_grad_(True)
    out = model(ids[:, 9:], memory=memory.set(1, "state", leaf))
    out.logits[:, -1].logsumexp(-1).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0
