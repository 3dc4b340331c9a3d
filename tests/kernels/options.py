"""Every mix of edits, saves and resets of `ssd`, through Triton's front end: a script for a process that compiles.

An argument that is missing is None in a compiled kernel, also in branches that the interpreter never takes.
Prints as JSON, for every mix, the kernels that were accepted.
"""

import itertools
import json

import torch

from solomonic.kernels.ssd.pieces import Edits
from solomonic.kernels.ssd.triton_op import ssd_triton
from solomonic.kernels.triton import aot
from solomonic.kernels.triton.launch import architecture, intercept

B, T, H, P, N = 1, 64, 2, 16, 16


def started(edit, save, reset):
    """The kernels of a call and its backward pass; without edits, saves or resets D and h0 are missing too."""

    def new(*shape, grad=True):
        return torch.empty(shape, device="meta", requires_grad=grad)

    whole = bool(edit or save or reset)
    edits = None
    if edit:
        edits = [Edits((7,), new(B, 1, H, grad=False), new(B, 1, H, P, N, grad=False) if edit == "add" else None)]
    D, h0 = (new(H), new(B, H, P, N)) if whole else (None, None)
    cuts = torch.empty(B, T, dtype=torch.bool, device="meta") if reset else None
    starts = []
    with architecture("sm_90"), intercept(starts.append):
        inputs = new(B, T, H, P), new(B, T, H), new(H), new(B, T, H, N), new(B, T, H, N)
        results = [
            each for each in ssd_triton(*inputs, D, h0, cuts, 64, edits, (50,) if save else ())[:3] if each is not None
        ]
        results = [each[0] if edit else each for each in results]
        torch.autograd.backward(results, [torch.empty_like(each) for each in results])
    return starts


def main():
    found = {}
    for edit, save, reset in itertools.product(("", "scale", "add"), (False, True), (False, True)):
        names = []
        for start in started(edit, save, reset):
            aot.lowered(start)
            names.append(start.kernel.__name__)
        found[f"{edit or 'no'} edit, save {save}, reset {reset}"] = names
    print(json.dumps(found))


if __name__ == "__main__":
    main()
