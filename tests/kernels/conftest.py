"""Shared by the kernel tests: uninitialised memory holds NaN, so that reading it shows."""

import pytest
import torch

# torch remembers its constructors at the first use of a device context: that must be the true ones.
with torch.device("cpu"):
    torch.empty(0)


def _poisoned(allocate):
    def call(*args, **kwargs):
        out = allocate(*args, **kwargs)
        return out.fill_(torch.nan) if out.is_floating_point() and not out.requires_grad else out

    return call


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """Fill what torch.empty, torch.empty_like and Tensor.new_empty return with NaN."""
    monkeypatch.setattr(torch, "empty", _poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", _poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", _poisoned(torch.Tensor.new_empty))
