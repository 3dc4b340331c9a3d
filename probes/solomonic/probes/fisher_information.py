"""Information in the weights: the diagonal of the Fisher information, by layer and kind of parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.func import functional_call, vjp, vmap
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .inputs import as_count, as_ids, as_level, as_model, as_rng, finite
from .labelled import provenance, units
from .parameter_blocks import ParameterBlock, parameter_blocks
from .statistics import bootstrap_interval

__all__ = ["DEFAULT_LAMBDAS", "fisher_information"]

#: A decade apart: prior precisions, in the unit of the Fisher information of one token.
DEFAULT_LAMBDAS = tuple(10.0**e for e in range(-8, 1))

_UNITS = {
    "fisher": ("sum of the diagonal Fisher information of the block's parameters", "nat/token per squared parameter"),
    "fisher_mean": ("its mean over the prompts", "nat/token per squared parameter"),
    "fisher_mean_interval": ("confidence interval of fisher_mean", "nat/token per squared parameter"),
    "effective": ("effective number of parameters, sum f / (f + lambda) (a proxy)", "1"),
    "effective_interval": ("confidence interval of effective", "1"),
    "effective_pseudo": ("jackknife pseudo-values of effective: their sums over blocks vary as those do", "1"),
    "effective_bias": ("jackknife estimate of the bias of effective from few prompts", "1"),
    "information": ("1/2 sum log(1 + f / lambda), above the prior's (a proxy)", "nat"),
    "information_interval": ("confidence interval of information", "nat"),
    "information_bias": ("jackknife estimate of the bias of information from few prompts", "nat"),
    "log_det_interval": ("confidence interval of log_det", "nat"),
    "fisher_group": ("fisher_mean of all blocks of a kind together", "nat/token per squared parameter"),
    "fisher_group_interval": ("confidence interval of fisher_group", "nat/token per squared parameter"),
    "effective_group": ("effective of all blocks of a kind together", "1"),
    "effective_group_interval": ("confidence interval of effective_group", "1"),
    "information_group": ("information of all blocks of a kind together", "nat"),
    "information_group_interval": ("confidence interval of information_group", "nat"),
    "log_det": ("1/2 log det(F + lambda I) with F diagonal (a proxy)", "nat"),
    "size": ("number of parameters", "1"),
    "bits": ("what the model needs for the text itself", "bit/token"),
    "lambda": ("precision of the prior over the number of tokens", "nat/token per squared parameter"),
}


def fisher_information(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    *,
    samples: int = 8,
    lambdas: Iterable[float] | float = DEFAULT_LAMBDAS,
    method: str = "loop",
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""The diagonal of the Fisher information of a model's parameters on a text, and what it says of each block.

    .. math:: f_i = \frac{1}{T} \sum_{t=1}^{T} \mathbb E_{y \sim p_\theta(\cdot \mid x_{\le t})}
              \Bigl(\frac{\partial \log p_\theta(y \mid x_{\le t})}{\partial \theta_i}\Bigr)^2, \qquad
              n_\lambda = \sum_i \frac{f_i}{f_i + \lambda}, \qquad
              I_\lambda = \tfrac12 \sum_i \log\Bigl(1 + \frac{f_i}{\lambda}\Bigr)

    The prefixes x are the text's; the targets y are drawn from the model. That is the true Fisher information, the
    curvature of the model's own predictions. (With the text's next tokens as targets one would get the "empirical"
    one, which measures something else wherever the model is not calibrated.) Parameters are grouped by layer and kind.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; its parameters and their gradients stay as they are.
    ids : array_like of int
        Token ids [T] or [prompts, T].
    samples : int, default 8
        Draws of the T targets for each prompt.
    lambdas : float or iterable of float
        Precisions of an isotropic Gaussian prior, divided by the number of tokens that the weights are taken to have
        been inferred from: the unit is that of f.
    method : {"loop", "vmap"}, default "loop"
        Whether the backward passes of the samples run one by one, or in one batch (`torch.func.vmap`), which holds
        ``samples`` gradients and activations at once.
    confidence : float, default 0.95
        Nominal coverage of the intervals over prompts.
    resamples : int, default 2000
        Resamples of the bootstrap.
    rng : int, numpy.random.Generator or None
        Source of the targets and the resamples. Equal seeds draw the targets of two models from the same uniform
        numbers, prompt by prompt.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims block, group, prompt, lambda, bound. Coordinates of block: ``layer`` (-1 of what is in none), ``kind``,
        ``size`` (see ``solomonic.probes.parameter_blocks``).

        - ``fisher`` (prompt, block), the sum of f over the block; ``fisher_mean`` (block) with its interval.
        - ``effective`` (lambda, block), with interval and ``effective_bias``: n_lambda, from 0 to ``size``.
          ``effective_pseudo`` (prompt, lambda, block), the jackknife's pseudo-values, for intervals of sums of blocks.
        - ``information`` (lambda, block), with interval and ``information_bias``: I_lambda; ``log_det``,
          which is I_lambda + (size / 2) log lambda, with its interval.
        - ``fisher_group`` (group), ``effective_group`` and ``information_group`` (lambda, group): the same for all
          blocks of a kind together, with intervals of these sums.
        - ``bits`` (prompt): the cross-entropy of the text itself, its first token left out; NaN for one token.

        Attributes: ``proxy`` (why these are none of the things themselves), provenance.

    Raises
    ------
    TypeError, ValueError
        If ids are no tokens, a logit or a gradient is NaN or infinite, a lambda is not positive, or an argument is out
        of its range.

    Notes
    -----
    *Unbiased.* Given the text, the scores of the positions are independent with mean 0, so that the mean square of
    their sum is the sum of their mean squares: one backward pass for a draw of all T targets suffices.

    *Proxies.* The diagonal leaves out what parameters share, and depends on how they are written down: scaling a
    parameter by a scales its f by 1/a^2. Neither number is "the" information; compare them for one architecture.

    *Bias.* n and I are concave in f: with few prompts and samples they come out low for parameters that matter seldom.
    The bias variables (estimate minus corrected) say by how much, by the jackknife over prompts; they are not taken
    off. The intervals have the jackknife's spread and the estimate as their centre.

    *Cost.* One forward and ``samples`` backward passes a prompt; holds prompts x parameters numbers in float32. On
    CPUs the loop is the faster method.

    References
    ----------
    Achille, Paolini and Soatto, "Where is the information in a deep neural network?" (arXiv:1905.12213), section 3, for
    log det(F + c I) under an isotropic Gaussian prior; MacKay, "A practical Bayesian framework for backpropagation
    networks" (1992), for the effective number of parameters; Kunstner, Balles and Hennig (arXiv:1905.12558) for what
    is wrong with the empirical one.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import fisher_information
    >>> model = HybridLM(HybridConfig(pattern="BMF", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=6), rng=0)
    >>> ids = torch.randint(16, (4, 12), generator=torch.Generator().manual_seed(0))
    >>> found = fisher_information(model, ids, samples=2, lambdas=1e-4)
    >>> short = fisher_information(model, ids[:, :6], samples=2, lambdas=1e-4)  # within W tokens the state is not read
    >>> decay = found.kind == "A_log"
    >>> bool(found.fisher_mean[decay] > 0), short.fisher_mean[decay].item()
    (True, 0.0)
    """
    model = as_model(model)
    text = as_ids(ids, model)
    samples, resamples = as_count(samples, "samples"), as_count(resamples, "resamples")
    grid, confidence = as_lambdas(lambdas), as_level(confidence, "confidence")
    if method not in ("loop", "vmap"):
        raise ValueError(f"method: expected 'loop' or 'vmap', got {method!r}")
    generator, seed = as_rng(rng)
    blocks = parameter_blocks(model)
    slices = _slices(model, blocks)
    squares = np.empty((len(text), slices[-1].stop), np.float32)
    bits = np.empty(len(text))
    steps = tqdm(text, disable=not progress, unit="prompt", desc="fisher_information")
    with torch.enable_grad():
        for row, tokens in enumerate(steps):
            uniform = generator.random((samples, len(tokens)))
            diagonal, bits[row] = fisher_diagonal(model, tokens, uniform, method)
            joined = torch.cat([diagonal[name].flatten() for block in blocks for name in block.names])
            squares[row] = finite(joined, "gradients of the log-likelihood").cpu().numpy()
    fisher = np.stack([squares[:, s].sum(1, dtype=np.float64) for s in slices], 1)
    data: dict[str, Any] = {
        "fisher": (("prompt", "block"), fisher),
        "fisher_mean": ("block", fisher.mean(0)),
        "fisher_mean_interval": (
            ("bound", "block"),
            _interval(fisher, confidence, resamples, generator, (0.0, np.inf)),
        ),
        "bits": ("prompt", bits),
    }
    size = np.array([s.stop - s.start for s in slices])
    groups = list(dict.fromkeys(block.kind for block in blocks))
    member = np.array([[block.kind == group for group in groups] for block in blocks], dtype=float)
    data["fisher_group"] = ("group", (fisher @ member).mean(0))
    data["fisher_group_interval"] = (("bound", "group"), _interval(fisher @ member, confidence, resamples, generator))
    for name, each in _PROXIES.items():
        value, pseudo = _jackknife(squares, slices, grid, each)
        around = pseudo - pseudo.mean(0) + value
        for label, dim, each_of, ceiling in (
            (name, "block", around, size),
            (f"{name}_group", "group", around @ member, size @ member),
        ):
            bounds = _interval(each_of, confidence, resamples, generator)
            highest = ceiling if name == "effective" else np.inf
            data[label] = (("lambda", dim), each_of.mean(0))
            data[f"{label}_interval"] = (("bound", "lambda", dim), np.clip(bounds, 0, highest))
        data[name] = (("lambda", "block"), value)
        data[f"{name}_bias"] = (("lambda", "block"), value - pseudo.mean(0))
        if name == "effective":
            data["effective_pseudo"] = (("prompt", "lambda", "block"), pseudo)
    prior = 0.5 * size * np.log(grid)[:, None]
    data["log_det"] = (("lambda", "block"), data["information"][1] + prior)
    data["log_det_interval"] = (("bound", "lambda", "block"), data["information_interval"][1] + prior)
    coords = {
        "block": [block.label for block in blocks],
        "layer": ("block", [block.layer for block in blocks]),
        "kind": ("block", [block.kind for block in blocks]),
        "size": ("block", size),
        "group": groups,
        "prompt": np.arange(len(text)),
        "lambda": grid,
        "bound": ["lower", "upper"],
    }
    arguments = {"ids": text, "samples": samples, "lambdas": grid, "method": method, "resamples": resamples}
    attrs = {
        **provenance("fisher_information", model=model, arguments=arguments, seed=seed),
        "confidence": confidence,
        "proxy": "the diagonal alone, in the coordinates of the checkpoint; effective and information are proxies",
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def fisher_diagonal(
    model: HybridLM | AdaptedLM, tokens: Tensor, uniform: np.ndarray, method: str = "loop"
) -> tuple[dict[str, Tensor], float]:
    """Mean over draws of the squared score of one text, over its length, by parameter; and the bits of the text.

    ``uniform`` [samples, T] are the numbers from which the targets are drawn. The diagonal is float32, or float64 for
    a model in float64; parameters that nothing depends on have 0.
    """
    own = {name: value.detach() for name, value in model.named_parameters()}
    text = tokens.to(next(iter(own.values())).device)[None]

    def logits_of(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (text,)).logits[0]

    total = {name: torch.zeros_like(value, dtype=_wide(value)) for name, value in own.items()}
    if method == "vmap":
        logits, pull = vjp(logits_of, own)[:2]
        scores = _logit_scores(finite(logits.detach(), "logits"), uniform)
        (gradients,) = vmap(pull)(scores.to(logits.dtype))
        for name, value in gradients.items():
            total[name] += value.to(_wide(value)).square().sum(0)
    else:
        leaves = {name: value.clone().requires_grad_() for name, value in own.items()}
        logits = logits_of(leaves)
        scores = _logit_scores(finite(logits.detach(), "logits"), uniform)
        for score in scores.to(logits.dtype):
            found = torch.autograd.grad(logits, [*leaves.values()], score, retain_graph=True, allow_unused=True)
            for name, value in zip(leaves, found, strict=True):
                if value is not None:
                    total[name] += value.to(_wide(value)).square()
    scale = 1.0 / (len(uniform) * len(tokens))
    return {name: value * scale for name, value in total.items()}, _bits(logits.detach(), text[0])


def _logit_scores(logits: Tensor, uniform: np.ndarray) -> Tensor:
    """Derivatives of the log-likelihood of drawn targets by the logits, onehot(y) - p, [samples, T, vocabulary]."""
    p = logits.double().softmax(-1)
    below = p.cumsum(-1)
    at = torch.as_tensor(uniform, device=p.device).T.contiguous() * below[:, -1:]
    drawn = torch.searchsorted(below, at, right=True).clamp_(max=p.shape[-1] - 1).T
    scores = -p.expand(len(uniform), *p.shape).clone()
    return scores.scatter_add_(-1, drawn[..., None], torch.ones_like(scores[..., :1]))


def _bits(logits: Tensor, text: Tensor) -> float:
    if len(text) < 2:
        return float("nan")
    nats = torch.nn.functional.cross_entropy(logits[:-1].double(), text[1:])
    return float(nats / np.log(2))


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)


def _slices(model: torch.nn.Module, blocks: list[ParameterBlock]) -> list[slice]:
    """Where each block lies in the row of all parameters."""
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    ends = np.cumsum([sum(sizes[name] for name in block.names) for block in blocks])
    return [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _effective(f: np.ndarray, strength: float) -> np.ndarray:
    return f / (f + strength)


def _information(f: np.ndarray, strength: float) -> np.ndarray:
    return 0.5 * np.log1p(f / strength)


#: What is summed over the parameters of a block.
_PROXIES = {"effective": _effective, "information": _information}


def _jackknife(squares: np.ndarray, slices: list[slice], grid: np.ndarray, each: Any) -> tuple[np.ndarray, np.ndarray]:
    """A sum over parameters [lambda, block] and its pseudo-values [prompt, lambda, block]."""
    count = len(squares)
    value = np.empty((len(grid), len(slices)))
    pseudo = np.empty((count, *value.shape))
    for column, where in enumerate(slices):
        part = squares[:, where]
        total = part.sum(0, dtype=np.float64)
        for row, strength in enumerate(grid):
            value[row, column] = each(total / count, strength).sum()
        for i, left in enumerate(_left_out(part, total)):
            without = np.array([each(left, strength).sum() for strength in grid])
            pseudo[i, :, column] = count * value[:, column] - (count - 1) * without
        if count == 1:
            pseudo[0, :, column] = value[:, column]
    return value, pseudo


def _left_out(part: np.ndarray, total: np.ndarray) -> Iterator[np.ndarray]:
    """Means without one of the prompts; none of one prompt."""
    count = len(part)
    for row in part[: count if count > 1 else 0]:
        yield np.maximum(total - row, 0.0) / (count - 1)


def _interval(
    values: np.ndarray,
    confidence: float,
    resamples: int,
    generator: np.random.Generator,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> np.ndarray:
    return bootstrap_interval(values, confidence=confidence, resamples=resamples, within=within, rng=generator)


def as_lambdas(lambdas: Iterable[float] | float) -> np.ndarray:
    """Positive, finite numbers, ascending, each once."""
    value = np.atleast_1d(np.asarray([*lambdas] if isinstance(lambdas, Iterable) else lambdas))
    if value.ndim != 1 or value.size == 0 or value.dtype.kind not in "iuf":
        raise ValueError(f"lambdas: expected positive numbers, at least one, got {lambdas!r}")
    value = np.unique(value.astype(np.float64))
    if not (np.isfinite(value).all() and value[0] > 0):
        raise ValueError(f"lambdas: expected positive and finite numbers, got {lambdas!r}")
    return value
