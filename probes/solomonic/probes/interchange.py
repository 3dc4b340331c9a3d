"""Which directions of a memory decide an answer: a subspace that is learned by interchanging it between prompts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.nn.utils.parametrizations import orthogonal
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory

from .edit import as_answers, cat_memories
from .edits import Edit, _region, apply, check
from .inputs import as_count, as_ids, as_level, as_model, as_rng, finite
from .labelled import provenance, units
from .random_weights import random_model
from .significance import paired_test
from .statistics import bootstrap_interval

__all__ = ["interchange_subspace"]

#: With which interchange the held-out pairs are scored.
CASES = ("none", "learned", "random subspace", "whole part", "random model", "random model, none")
_CONTROLS = ("random subspace", "random model")

_UNITS = {
    "flipped": ("whether the counterfactual answer is likelier than the base's", "1"),
    "exact": ("whether the counterfactual answer is the likeliest token of all", "1"),
    "shift": ("logit of the counterfactual answer minus the base's, above that without interchange", "nat"),
    "gain": ("flipped above that without interchange, as a share of the pairs that are left to flip", "1"),
    "accuracy": ("interchange accuracy: mean of flipped over the held-out pairs", "1"),
    "accuracy_interval": ("confidence interval of accuracy", "1"),
    "selectivity": ("mean gain of the learned subspace minus that of the control", "1"),
    "selectivity_interval": ("confidence interval of selectivity", "1"),
    "p": ("p-value of no difference from the control, signs of the pairs flipped", "1"),
    "loss": ("what is minimized, on the training pairs of the step", "nat"),
    "basis": ("orthonormal columns of the learned subspace", "1"),
}


def interchange_subspace(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    base: Any,
    source: Any,
    answers: Any,
    *,
    layer: int,
    time: int,
    part: str = "state",
    source_time: int | None = None,
    heads: Any = None,
    field: str | None = None,
    directions: int = 1,
    steps: int = 100,
    lr: float = 0.02,
    batch_size: int = 32,
    train_share: float = 0.5,
    draws: int = 10,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Learn the directions of a memory whose interchange between two prompts turns the answer of one into the other's.

    .. math:: m \leftarrow m^{b} + (m^{s} - m^{b})\, Q Q^\top, \qquad
              \min_{Q^\top Q = 1}\; -\sum_{(b, s)} \log \sigma\bigl(\ell_{y_s}(m) - \ell_{y_b}(m)\bigr)

    with the base's memory after token ``time``, the source's after ``source_time``, and the logits at the last token of
    the base. The subspace is learned on some of the pairs and scored on the others.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    base : array_like of int
        Prompts [pairs, T] that are run to the end.
    source : array_like of int
        Prompts [pairs, T'] whose memory is taken.
    answers : pair of array_like of int
        (base, counterfactual): the token after each base prompt, and the one that it should be with what the source
        holds; a token, or one for each pair. They differ in every pair.
    layer : int
        The layer.
    time : int
        The token of the base after which its memory is changed, from 0 to T - 2.
    part : str, default "state"
        The part of the memory.
    source_time : int, optional
        The token of the source after which its memory is taken; ``time`` by default.
    heads : int or sequence of int, optional
        Heads whose numbers are changed; all by default.
    field : str, optional
        One tensor of a part that has several, ``"value"`` say.
    directions : int, default 1
        k, the dimension of the subspace.
    steps : int, default 100
        Steps of Adam.
    lr : float, default 0.02
        Its learning rate.
    batch_size : int, default 32
        Pairs a step, and pairs that run together.
    train_share : float, default 0.5
        Share of the pairs to learn from.
    draws : int, default 10
        Random subspaces of the same dimension that are tried as a control.
    confidence : float, default 0.95
        Nominal coverage of the intervals over pairs.
    resamples : int, default 2000
        Resamples of the bootstrap and the tests.
    rng : int, numpy.random.Generator or None
        Source of the split, the first subspace, the batches, the random weights and the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims case, pair (held-out ones), control, bound, entry, direction, step. Cases: ``none`` (no interchange),
        ``learned``, ``random subspace``, ``whole part``, ``random model`` (a subspace learned in the same way in a
        model with random weights) and that model without interchange.

        - ``flipped``, ``exact`` and ``shift`` (case, pair); of random subspaces the mean over the draws.
        - ``accuracy`` (case), the mean of ``flipped``, with its interval. A model with random weights ranks two answers
          by chance, and has 1/2 without an interchange. So ``gain`` (case, pair) is (flipped - a) / (1 - mean a), with
          a that of the same model without: on average 1 where all that could flip does.
        - ``selectivity`` (control): gain of the learned subspace minus that of a random one and minus that in the
          random model, with interval and ``p``.
        - ``basis`` (entry, direction), for ``Edit(..., "set", value, subspace=basis)``; ``loss`` (step).

    Raises
    ------
    TypeError, ValueError
        If sizes differ, the part is not there or is of several tensors and no field is named, answers agree, there are
        fewer than two pairs on a side of the split, or an argument is out of its range.

    Notes
    -----
    An effect of a learned subspace is no evidence by itself: optimization finds directions that flip answers in
    networks with random weights too, the more of them the more directions it may use. Look at ``selectivity``, and at
    whether ``whole part`` flips the answer at all. Intervals and ``p`` are over pairs, for the subspace, the control
    and the one random model at hand: another seed draws others. A part that is changed without the others makes a
    memory that no text leads to. Costs ``steps`` passes forward and back over what follows ``time``, twice.

    References
    ----------
    Geiger et al., "Finding alignments between interpretable causal variables and distributed neural representations"
    (arXiv:2303.02536), section 3 (distributed alignment search); Arora, Jurafsky and Potts, "CausalGym"
    (arXiv:2402.12560), for controls.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import interchange_subspace
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> base, source = torch.randint(16, (2, 12, 8), generator=torch.Generator().manual_seed(0))
    >>> found = interchange_subspace(model, base, source, (3, 5), layer=0, time=5, directions=2, steps=5)
    >>> found.basis.shape, (found.basis.values.T @ found.basis.values).round(4) + 0.0
    ((128, 2), array([[1., 0.],
           [0., 1.]]))
    """
    model = as_model(model)
    device = next(model.parameters()).device
    run, donor = as_ids(base, model, name="base", least=2), as_ids(source, model, name="source")
    if len(run) != len(donor):
        raise ValueError(f"source: expected a prompt for each of {len(run)} of base, got {len(donor)}")
    source_time = time if source_time is None else source_time
    edit = Edit(layer, part, time, "zero", heads=heads, field=field)
    taken = Edit(layer, part, source_time, "zero", heads=heads, field=field)
    check([edit, taken], model)
    if time > run.shape[1] - 2:
        raise ValueError(f"time: expected a token from 0 to {run.shape[1] - 2}, others follow it, got {time}")
    if source_time > donor.shape[1] - 1:
        raise ValueError(f"source_time: expected a token from 0 to {donor.shape[1] - 1}, got {source_time}")
    if isinstance(model.empty_memory().get(edit.layer, part), tuple) and field is None:
        raise ValueError(f"field: part {part!r} is of several tensors; name one of them")
    pair = torch.as_tensor(as_answers(answers, model, run).T.copy(), device=device)
    directions, steps = as_count(directions, "directions"), as_count(steps, "steps")
    batch_size, draws = as_count(batch_size, "batch_size"), as_count(draws, "draws")
    resamples, confidence = as_count(resamples, "resamples"), as_level(confidence, "confidence")
    learning = round(as_level(train_share, "train_share") * len(run))
    if min(learning, len(run) - learning) < 2:
        raise ValueError(f"base: expected at least two pairs to learn from and two to score, got {len(run)} pairs")
    if isinstance(lr, bool) or not np.isfinite(lr) or not lr > 0:
        raise ValueError(f"lr: expected a positive number, got {lr!r}")
    generator, seed = as_rng(rng)
    order = generator.permutation(len(run))
    train, test = np.sort(order[:learning]), np.sort(order[learning:])
    chance = random_model(model, generator)
    results: dict[str, np.ndarray] = {}
    with tqdm(total=2 * steps, disable=not progress, unit="step", desc="interchange_subspace") as bar:
        pairs = _Pairs(model, run.to(device), donor.to(device), pair, edit, taken, batch_size)
        if directions > pairs.size:
            raise ValueError(
                f"directions: expected at most {pairs.size}, the numbers that are changed, got {directions}"
            )
        options: dict[str, Any] = {"directions": directions, "steps": steps, "lr": lr, "batch_size": batch_size}
        q, losses = learn_basis(
            pairs.margin, pairs.base, pairs.source, train, rng=generator, step=bar.update, **options
        )
        results["none"] = pairs.score(test, None)
        results["learned"] = pairs.score(test, q)
        tried = [pairs.score(test, random_basis(pairs.size, directions, generator).to(q)) for _ in range(draws)]
        results["random subspace"] = np.mean(tried, 0)
        results["whole part"] = pairs.score(test, torch.eye(pairs.size).to(q))
        other = _Pairs(chance, run.to(device), donor.to(device), pair, edit, taken, batch_size)
        q_chance, _ = learn_basis(
            other.margin, other.base, other.source, train, rng=generator, step=bar.update, **options
        )
        results["random model"] = other.score(test, q_chance)
        results["random model, none"] = other.score(test, None)
    value = np.stack([results[case] for case in CASES])  # case, what, pair
    margin = value[:, 2]
    without = np.stack([results["random model, none" if "model" in case else "none"] for case in CASES])
    interval = partial(bootstrap_interval, confidence=confidence, resamples=resamples, rng=generator)
    flipped = value[:, 0]
    left = 1 - without[:, 0].mean(1, keepdims=True)  # nothing is left to flip: no gain
    gain = np.where(left > 0, flipped - without[:, 0], 0.0) / np.where(left > 0, left, 1.0)
    ahead = np.stack([gain[CASES.index("learned")] - gain[CASES.index(name)] for name in _CONTROLS], 1)
    data = {
        "flipped": (("case", "pair"), flipped),
        "exact": (("case", "pair"), value[:, 1]),
        "shift": (("case", "pair"), margin - without[:, 2]),
        "gain": (("case", "pair"), gain),
        "accuracy": ("case", flipped.mean(1)),
        "accuracy_interval": (("bound", "case"), interval(flipped.T, within=(0, 1))),
        "selectivity": ("control", ahead.mean(0)),
        "selectivity_interval": (("bound", "control"), interval(ahead)),
        "p": ("control", paired_test(ahead, resamples=resamples, rng=generator)),
        "basis": (("entry", "direction"), q.double().cpu().numpy()),
        "loss": ("step", losses),
    }
    coords = {"case": [*CASES], "control": [*_CONTROLS], "pair": test, "bound": ["lower", "upper"]}
    arguments = {
        "base": run,
        "source": donor,
        "answers": pair,
        "layer": layer,
        "time": time,
        "part": part,
        "source_time": source_time,
        "heads": heads,
        "field": field,
        "train_share": train_share,
        "draws": draws,
        **options,
    }
    attrs = provenance("interchange_subspace", model=model, arguments=arguments, seed=seed)
    return units(xr.Dataset(data, coords, {**attrs, "confidence": confidence}), _UNITS)


def learn_basis(
    margin: Callable[[np.ndarray, Tensor], Tensor],
    base: Tensor,
    source: Tensor,
    train: np.ndarray,
    *,
    directions: int,
    steps: int,
    lr: float,
    batch_size: int,
    rng: np.random.Generator,
    step: Callable[[], Any] = lambda: None,
) -> tuple[Tensor, np.ndarray]:
    """Orthonormal columns [size, k] whose interchange raises a margin, and the loss of every step.

    ``margin`` takes the numbers of some pairs and what stands in the place of their ``base`` values [pairs, size], and
    returns the logit of the counterfactual answer minus that of the base's.
    """
    rotation = nn.Module()
    rotation.weight = nn.Parameter(random_basis(base.shape[1], directions, rng).to(base))
    orthogonal(rotation, orthogonal_map="householder", use_trivialization=False)
    weights = [*rotation.parameters()]
    optimizer = torch.optim.Adam(weights, lr=lr)
    losses = np.empty(steps)
    with torch.enable_grad():
        for number in range(steps):
            pick = rng.choice(train, size=min(batch_size, len(train)), replace=False)
            mixed = interchanged(base[pick], source[pick], cast(Tensor, rotation.weight))
            loss = -logsigmoid(margin(pick, mixed).double()).mean()
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            optimizer.step()
            losses[number] = float(loss.detach())
            step()
    return cast(Tensor, rotation.weight).detach(), losses


def interchanged(base: Tensor, source: Tensor, q: Tensor) -> Tensor:
    """The base's values with their component in the span of q taken from the source."""
    return base + ((source - base) @ q) @ q.T


def random_basis(size: int, directions: int, rng: np.random.Generator) -> Tensor:
    """Orthonormal columns of a uniformly random subspace, [size, directions]."""
    return torch.from_numpy(np.linalg.qr(rng.normal(size=(size, directions)))[0])


class _Pairs:
    """Pairs of prompts, read up to the interchange: what the bases go on from, and the values that change places."""

    def __init__(
        self,
        model: HybridLM | AdaptedLM,
        run: Tensor,
        donor: Tensor,
        answers: Tensor,
        edit: Edit,
        taken: Edit,
        batch_size: int,
    ):
        self.model, self.run, self.answers, self.edit, self.batch_size = model, run, answers, edit, batch_size
        starts = range(0, len(run), batch_size)
        with torch.no_grad():
            self.memory, given = (
                cat_memories([model(ids[i : i + batch_size, : e.time + 1]).memory for i in starts])
                for ids, e in ((run, edit), (donor, taken))
            )
        held, other = self._values(edit, self.memory), self._values(taken, given)
        if held.shape != other.shape or not held[0].numel():
            raise ValueError(
                f"source_time: expected part {edit.part!r} to hold as many numbers in both, at least one, got "
                f"{tuple(held.shape[1:])} in base and {tuple(other.shape[1:])} in source; take times of equal length"
            )
        self.shape = held.shape[1:]
        self.base = finite(held.flatten(1), "values of the memory")
        self.source = finite(other.flatten(1), "values of the memory")
        self.size = self.base.shape[1]

    @staticmethod
    def _values(e: Edit, memory: Memory) -> Tensor:
        value = memory.get(e.layer, e.part)
        return _region(e, value if isinstance(value, Tensor) else getattr(value, str(e.field)))

    def logits(self, pick: np.ndarray, values: Tensor) -> Tensor:
        """Logits at the last token of some bases with these values in place."""
        e = self.edit
        changed = Edit(e.layer, e.part, e.time, "set", values.reshape(-1, *self.shape), heads=e.heads, field=e.field)
        memory = apply(changed, self.memory.map(partial(_rows, pick=pick)), np.random.default_rng(0))
        return self.model(self.run[pick, e.time + 1 :], memory=memory).logits[:, -1]

    def margin(self, pick: np.ndarray, values: Tensor) -> Tensor:
        """Logit of the counterfactual answer minus that of the base's."""
        two = self.logits(pick, values).gather(1, self.answers[pick])
        return two[:, 1] - two[:, 0]

    def score(self, test: np.ndarray, q: Tensor | None) -> np.ndarray:
        """Flipped, exact and margin of held-out pairs, [3, pairs]; without an interchange for None."""
        out = []
        with torch.no_grad():
            for i in range(0, len(test), self.batch_size):
                pick = test[i : i + self.batch_size]
                base = self.base[pick]
                logits = self.logits(pick, base if q is None else interchanged(base, self.source[pick], q.to(base)))
                finite(logits, "logits")
                two = logits.double().gather(1, self.answers[pick])
                margin = two[:, 1] - two[:, 0]
                exact = logits.argmax(-1) == self.answers[pick, 1]
                out.append(torch.stack([(margin > 0).double(), exact.double(), margin]).cpu().numpy())
        return np.concatenate(out, 1)


def _rows(value: Tensor, pick: np.ndarray) -> Tensor:
    return value[torch.as_tensor(pick, device=value.device)]
