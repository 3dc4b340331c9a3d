"""How far what is said with another text's memory is from what would have been said without."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ..divergence import kl_bits
from ..statistics import bootstrap_interval
from ..transplant import Transplant
from ._style import axes, colour, keep_curves_large, legend, looks, named, plain, shade, sparse


def transplant(result: Transplant | dict[str, Transplant], *, confidence: float = 0.95, ax: Axes | None = None) -> Axes:
    r"""Draw the divergence from the receiver's own predictions over the tokens that were read after the transplant.

    Parameters
    ----------
    result : Transplant, or mapping from names to Transplants
        What :func:`solomonic.probes.transplant` returns.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a result, the mean over prompts, with the band of its interval (studentized bootstrap, pointwise); a
        single prompt has no band.

    Raises
    ------
    TypeError
        If ``result`` is no such result.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import load
    >>> from solomonic.probes import transplant as exchange
    >>> one, other = torch.tensor(list(b"import os\\n")), torch.tensor(list(b"def f(x):\\n"))
    >>> transplant(exchange(load("fading"), one, other, continuation=one[:4])).get_xlabel()
    'tokens read after the transplant'
    """
    found = named(result, kind=Transplant)
    ax = axes(ax)
    plain(ax)
    tops = [0.0]
    for name, look in looks(found).items():
        kl = kl_bits(found[name].baseline.detach(), found[name].logits.detach()).cpu().numpy()
        tops.append(float(kl.mean(0).max()))
        read = 1 + np.arange(kl.shape[1])
        tint = colour(look.colour)
        if len(kl) > 1:
            shade(ax, read, bootstrap_interval(kl, within=(0, np.inf), confidence=confidence, rng=0), tint)
        ax.plot(read, kl.mean(0), color=tint, linestyle=look.linestyle, marker=look.marker, markersize=4.5,
                markevery=sparse(read.astype(float)), label=name or None)  # fmt: skip
    keep_curves_large(ax, max(tops))
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_xlabel("tokens read after the transplant")
    ax.set_ylabel("divergence from the receiver's own, bits")
    if len(found) > 1:
        legend(ax, loc="best")
    return ax
