"""Bytes of the tensors that Triton kernels are started with: what each moves if it touches every byte once."""

import torch
from torch import Tensor

from solomonic.kernels.triton.launch import intercept


def started(call, *, backward=False):
    """The kernels that a call on tensors without memory starts, by name: bytes of each of their tensors.

    `call` makes its tensors on the device "meta"; with `backward`, only the kernels of the backward pass are given.
    """
    starts = []
    with intercept(starts.append):
        results = [each for each in call() if each is not None]
        if backward:
            starts.clear()
            torch.autograd.backward(results, [torch.empty_like(each) for each in results])
    return [
        (start.kernel.__name__, {n: a.nbytes for n, a in start.arguments.items() if isinstance(a, Tensor)})
        for start in starts
    ]


def moved(kernels):
    return sum(sum(sizes.values()) for _, sizes in kernels)
