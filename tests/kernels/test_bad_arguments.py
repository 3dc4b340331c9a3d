"""Every wrong argument is named, with what was expected and what came."""

from typing import Any

import pytest
import torch

from solomonic.kernels import memory_attention, short_conv, ssd

B, T, H, P, N, K, V = 2, 6, 4, 3, 5, 3, 2


def _ssd(**changed):
    arguments: dict[str, Any] = {
        "x": torch.randn(B, T, H, P),
        "dt": torch.rand(B, T, H),
        "A": -torch.rand(H),
        "B": torch.randn(B, T, 2, N),
        "C": torch.randn(B, T, 2, N),
    } | changed
    return ssd(**arguments)


def _conv(**changed):
    arguments: dict[str, Any] = {"x": torch.randn(B, T, 4), "weight": torch.randn(4, 3)} | changed
    return short_conv(**arguments)


def _attention(**changed):
    arguments: dict[str, Any] = {
        "q": torch.randn(B, T, H, K),
        "k": torch.randn(B, T + 1, 2, K),
        "v": torch.randn(B, T + 1, 2, V),
        "window": 3,
    } | changed
    return memory_attention(**arguments)


def _fading(**changed):
    items = {"kf": torch.randn(B, T, 2, K), "vf": torch.randn(B, T, 2, V)} | changed
    return tuple(items[n] for n in ("qf", "kf", "vf") if n in items)


BAD = [
    # op, what is changed, exception, what the message must hold
    (_ssd, {"x": [1.0]}, TypeError, ("x", "Tensor", "list")),
    (_ssd, {"x": torch.ones(B, T, H, P, dtype=torch.int64)}, TypeError, ("x", "float", "int64")),
    (_ssd, {"x": torch.ones(B, T, H, P, dtype=torch.complex64)}, TypeError, ("x", "complex64")),
    (_ssd, {"x": torch.ones(B, T, H)}, ValueError, ("x", "[B, T, H, P]", "(2, 6, 4)")),
    (_ssd, {"dt": torch.rand(B, T, 3)}, ValueError, ("dt", "(2, 6, 4)", "(2, 6, 3)")),
    (_ssd, {"dt": torch.rand(B, T, H).double()}, TypeError, ("dt", "float32", "float64")),
    (_ssd, {"dt": torch.rand(B, T, H, device="meta")}, ValueError, ("dt", "device", "cpu", "meta")),
    (_ssd, {"A": torch.rand(3)}, ValueError, ("A", "(4,)", "(3,)")),
    (_ssd, {"A": torch.ones(H, dtype=torch.int32)}, TypeError, ("A", "int32")),
    (_ssd, {"B": torch.randn(B, T, 3, N)}, ValueError, ("B", "divides H = 4", "3")),
    (_ssd, {"B": torch.randn(B, T, 0, N)}, ValueError, ("B", "divides H = 4", "0")),
    (_ssd, {"B": torch.randn(B, T + 1, 2, N)}, ValueError, ("B", "(2, 6)", "(2, 7)")),
    (_ssd, {"B": torch.randn(B, T, 2, N).half()}, TypeError, ("B", "float32", "float16")),
    (_ssd, {"C": torch.randn(B, T, N)}, ValueError, ("C", "[B, T, G, N]", "(2, 6, 5)")),
    (_ssd, {"C": torch.randn(B, T, 2, N + 1)}, ValueError, ("C", "N = 5", "6")),
    (_ssd, {"D": torch.rand(H, P)}, ValueError, ("D", "[H]", "(4, 3)")),
    (_ssd, {"h0": torch.randn(B, H, N, P)}, ValueError, ("h0", "(2, 4, 3, 5)", "(2, 4, 5, 3)")),
    (_ssd, {"h0": torch.zeros(B, H, P, N).double()}, TypeError, ("h0", "float64")),
    (_ssd, {"reset": torch.zeros(B, T)}, TypeError, ("reset", "bool", "float32")),
    (_ssd, {"reset": torch.zeros(T, dtype=torch.bool)}, ValueError, ("reset", "[B, T]", "(6,)")),
    (_ssd, {"reset": torch.zeros(B, T, dtype=torch.bool, device="meta")}, ValueError, ("reset", "meta")),
    (_ssd, {"chunk": 0}, ValueError, ("chunk", "at least 1", "0")),
    (_ssd, {"chunk": 6.0}, TypeError, ("chunk", "int", "float")),
    (_ssd, {"chunk": True}, TypeError, ("chunk", "int", "bool")),
    (_ssd, {"backend": "gpu"}, ValueError, ("backend", "'cpu'", "'gpu'")),
    (_ssd, {"backend": None}, TypeError, ("backend", "string", "NoneType")),
    (_conv, {"x": torch.randn(B, 4)}, ValueError, ("x", "[B, T, C]", "(2, 4)")),
    (_conv, {"x": torch.ones(B, T, 4, dtype=torch.int64)}, TypeError, ("x", "int64")),
    (_conv, {"weight": torch.randn(3, 4)}, ValueError, ("weight", "C = 4", "(3, 4)")),
    (_conv, {"weight": torch.randn(4, 0)}, ValueError, ("weight", "k >= 1", "(4, 0)")),
    (_conv, {"weight": torch.randn(4, 1, 3)}, ValueError, ("weight", "[C, k]", "(4, 1, 3)")),
    (_conv, {"weight": torch.randn(4, 3).double()}, TypeError, ("weight", "float32", "float64")),
    (_conv, {"bias": torch.randn(3)}, ValueError, ("bias", "(4,)", "(3,)")),
    (_conv, {"state": torch.randn(B, 3, 4)}, ValueError, ("state", "(2, 2, 4)", "(2, 3, 4)")),
    (_conv, {"state": torch.randn(B, 2, 4).half()}, TypeError, ("state", "float32", "float16")),
    (_conv, {"reset": torch.zeros(B, T, dtype=torch.int64)}, TypeError, ("reset", "bool", "int64")),
    (_conv, {"activation": "relu"}, ValueError, ("activation", "'silu'", "'relu'")),
    (_attention, {"q": torch.randn(B, T, K)}, ValueError, ("q", "[B, T, H, K]", "(2, 6, 3)")),
    (_attention, {"q": torch.ones(B, T, H, K, dtype=torch.bool)}, TypeError, ("q", "bool")),
    (_attention, {"k": torch.randn(B, T, 3, K)}, ValueError, ("k", "divides H = 4", "3")),
    (_attention, {"k": torch.randn(B, T - 1, 2, K)}, ValueError, ("k", "T = 6", "5")),
    (_attention, {"k": torch.randn(B, T, 2, K + 1)}, ValueError, ("k", "(2, 6, 2, 3)", "(2, 6, 2, 4)")),
    (_attention, {"k": torch.randn(B, T, 2, K).double()}, TypeError, ("k", "float32", "float64")),
    (_attention, {"v": torch.randn(B, T, 2, V)}, ValueError, ("v", "(2, 7, 2, 2)", "(2, 6, 2, 2)")),
    (_attention, {"v": None}, TypeError, ("v", "Tensor", "NoneType")),
    (_attention, {"window": 0}, ValueError, ("window", "at least 1", "0")),
    (_attention, {"window": 2.5}, TypeError, ("window", "int", "float")),
    (_attention, {"scale": "big"}, TypeError, ("scale", "float", "str")),
    (_attention, {"scale": float("nan")}, ValueError, ("scale", "finite", "nan")),
    (_attention, {"block": -1}, ValueError, ("block", "at least 1", "-1")),
    (_attention, {"fading": torch.randn(2, B, T, 2, K)}, TypeError, ("fading", "(kf, vf)", "Tensor")),
    (_attention, {"fading": _fading()[:1]}, ValueError, ("fading", "(kf, vf)", "1")),
    (_attention, {"fading": (None, torch.randn(B, T, 2, V))}, TypeError, ("fading", "Tensor", "NoneType")),
    (_attention, {"fading": _fading(), "window": None}, ValueError, ("window", "fading", "None")),
    (_attention, {"fading": _fading(kf=torch.randn(B, T, 4, K))}, ValueError, ("fading keys", "(2, 6, 4, 3)")),
    (_attention, {"fading": _fading(vf=torch.randn(B, 3, 2, V))}, ValueError, ("fading values", "(2, 3, 2, 2)")),
    (_attention, {"fading": _fading(kf=torch.ones(B, T, 2, K).half())}, TypeError, ("fading keys", "float16")),
    (_attention, {"fading": _fading(qf=torch.randn(B, 1, H, K))}, ValueError, ("fading queries", "(2, 1, 4, 3)")),
    (_attention, {"backend": "cuda"}, ValueError, ("backend", "'cuda'")),
]


@pytest.mark.parametrize(("op", "changed", "kind", "parts"), BAD, ids=lambda v: None if callable(v) else "")
def test_message_names_the_argument(op, changed, kind, parts):
    with pytest.raises(kind) as caught:
        op(**changed)
    message = str(caught.value)
    assert message.startswith(parts[0])
    for part in parts:
        assert part in message


@pytest.mark.parametrize("op", [_ssd, _conv, _attention])
def test_the_unchanged_call_is_right(op):
    for backend in ("auto", "reference", "cpu"):
        op(backend=backend)
