"""What the figures say, in sentences that carry the measured numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from solomonic.models import HybridConfig

from .measure import Measured
from .say import count, listed, nbytes, share, small, times

#: What a layer is, by its symbol; {W} is its window.
LAYERS = {
    "*": "attention over all of the past: every key and value is kept, so its memory is exact and grows with the text",
    "SWA": "attention over the last {W} tokens: a shift register, exact for {W} tokens and empty of what came before",
    "M2": "Mamba2: a state of fixed size that decays (fading), behind a register of 3 tokens (exact)",
    "GDN": "a gated delta rule: a state of fixed size that decays, and in which a write replaces what its key held",
    "GKA": "Gated KalmaNet: the decaying sums of a ridge regression from keys to values, solved anew at every token",
    "BMF": "B'MOJO-F: one softmax over the last {W} inputs (exact) and {W} fading tokens, read out of a decaying state",
    "BMO": "B'MOJO: one softmax over the last {W} inputs (exact), fading tokens of a decaying state, and the tokens "
    "whose innovation was greatest (exact)",
}


def what_it_is(config: HybridConfig) -> str:
    """One paragraph: the kinds of layers, and what they keep."""
    kinds = list(dict.fromkeys(config.pattern))
    window = {"SWA": config.swa_window, "BMF": config.bmojo_window, "BMO": config.bmojo_window}
    told = [LAYERS[kind].format(W=window.get(kind)) for kind in kinds]
    layers = len(config.pattern)
    if len(kinds) == 1:
        return f"{count(layers, 'layer').capitalize()} of {told[0]}."
    parts = [f"{config.pattern.count(k)} of {text}" for k, text in zip(kinds, told, strict=True)]
    return f"{count(layers, 'layer').capitalize()}: " + "; ".join(parts) + "."


def reach_formula(config: HybridConfig) -> str:
    """The sum of W - 1 over the layers, plus one, as a formula."""
    if set(config.pattern) == {"SWA"}:
        return f"{len(config.pattern)} · ({config.swa_window} − 1) + 1"
    return ""


def influence(m: Measured) -> str:
    """Where the fading curve ends, or that it does not."""
    curve = m.data["fading"]
    prompts, lags = curve.sizes["prompt"], curve["lag"].to_numpy()
    cut, last, reach = (int(curve.attrs[key]) for key in ("cut", "last_influence", "reach"))
    if cut >= 0 and last > 0:
        formula = reach_formula(m.subject.model.config)
        exact = f" = {formula}" if formula and cut == reach + 1 else ""
        said = (
            f"The influence is exactly 0.0 from lag {cut}{exact} on, in all {prompts} windows: their logits are the "
            f"same to the last bit. At lag {last} it is still {bits_at(curve, 'kl_mean', last)} on average."
        )
        if reach >= 0 and last < reach:
            said += (
                f" By its windows a token could matter up to lag {reach}; what was left beyond {last} was lost in "
                "rounding, or those lags were not measured."
            )
        elif reach < 0:
            said += " Nothing in its layers cuts there: what was left was lost in rounding."
        return said
    if cut >= 0:
        return "No measured lag has any influence at all."
    farthest = int(lags[-1])
    zero = float(curve["share_zero"].sel(lag=farthest))
    said = (
        f"No cut: at the farthest lag, {farthest}, the median influence is still "
        f"{bits_at(curve, 'kl_median', farthest)} (mean {bits_at(curve, 'kl_mean', farthest)})"
    )
    if zero > 0:
        return said + f", although it is exactly 0.0 in {share(zero)} of the windows."
    return said + f", and it is exactly 0.0 in none of the {prompts} windows."


def bits_at(curve: xr.Dataset, variable: str, lag: int) -> str:
    """A number of a fading curve at a lag."""
    return small(float(curve[variable].sel(lag=lag)), "bits")


def falls(found: xr.Dataset) -> list[tuple[str, str]]:
    """For each band of lags its name, and how many times smaller the influence gets when the lag doubles."""
    last = len(found["band"]) - 1
    out = []
    for i, (start, stop) in enumerate(zip(found["start"].to_numpy(), found["stop"].to_numpy(), strict=True)):
        slope = float(found["slope"][i])
        if not np.isfinite(slope):
            out.append((band(start, stop, i == last), ""))
            continue
        lower, upper = (float(found["slope_interval"].sel(bound=b)[i]) for b in ("lower", "upper"))
        between = f" ({times(2**-upper)} to {times(2**-lower)})" if np.isfinite(lower + upper) else ""
        out.append((band(start, stop, i == last), f"{times(2**-slope)}{between}"))
    return out


def band(start: int, stop: int, last: bool) -> str:
    """The name of a band of lags."""
    return f"from {start} on" if last else f"{start} to {stop - 1}"


def steepness(found: xr.Dataset) -> str:
    """How steeply a curve falls, band by band."""
    told = [f"{fall} at lags {name}" for name, fall in falls(found) if fall]
    return f"Each doubling of the lag divides the median influence by {listed(told)}." if told else ""


def bending(found: xr.Dataset, window: int) -> str:
    """Whether a curve bends at W and at 2W: whether its rate of decay, decades per 100 tokens, changes there."""
    told = []
    rates = dict(zip(found["start"].to_numpy().tolist(), -found["rate"].to_numpy(), strict=True))
    starts = list(rates)
    for edge, name in ((window, f"W = {window}"), (2 * window, f"2W = {2 * window}")):
        if edge not in found["edge"].to_numpy():
            continue
        at = found.sel(edge=edge)
        change = float(at["rate_change"])
        lower, upper = (float(at["rate_change_interval"].sel(bound=b)) for b in ("lower", "upper"))
        before, after = rates[starts[starts.index(edge) - 1]], rates[edge]
        if not np.isfinite(change) or not np.isfinite(lower + upper):
            told.append(f"at {name} too little is left to tell")
            continue
        turn = f"from {before:.1f} to {after:.1f} decades per 100 tokens (change {signed(-upper)} to {signed(-lower)})"
        if upper < 0:
            told.append(f"at {name} it bends down, {turn}")
        elif lower > 0:
            told.append(f"at {name} it falls more slowly than before, {turn}")
        else:
            told.append(f"at {name} these windows show no bend, {turn}")
    joined = "; ".join(told)
    return f"{joined[:1].upper()}{joined[1:]}." if told else ""


def signed(value: float) -> str:
    """A number with its sign."""
    return f"{value:+.1f}".replace("-", "−")


def means_and_medians(m: Measured) -> str:
    """How far the mean rides above the median, and why."""
    curve = m.data["fading"]
    both = (curve["kl_median"] > 0) & (curve["lag"] > 8)
    if not bool(both.any()):
        return ""
    ratio = (curve["kl_mean"] / curve["kl_median"]).where(both)
    lag = int(ratio.idxmax("lag"))
    column = curve["kl"].sel(lag=lag).to_numpy()
    top = max(1, round(0.1 * len(column)))
    carried = float(np.sort(column)[-top:].sum() / column.sum())
    return (
        f"The mean rides on a few windows: at lag {lag} it is {times(float(ratio.max()))} times the median, and the "
        f"{count(top, 'window')} with the largest influence {'carries' if top == 1 else 'carry'} {share(carried)} of "
        "it. That is why the solid line is the median."
    )


def half_lives(data: xr.Dataset) -> str:
    """Half-lives of the heads, shortest and longest, and what was cut off."""
    half = data["half_life"]
    values = half.to_numpy()
    finite = np.isfinite(values)
    heads = int((~np.isnan(values)).sum())
    said = ""
    if finite.any():
        low, high = where(half.where(np.isfinite(half)), "min"), where(half.where(np.isfinite(half)), "max")
        said = (
            f"With the gates as they were in the run, half of a state is gone after {small(low[0], 'tokens')} in the "
            f"fastest head ({low[1]}) and after {small(high[0], 'tokens')} in the slowest that was seen to end "
            f"({high[1]}); the median over the {heads} heads is {small(float(np.nanmedian(values)), 'tokens')}."
        )
    outlived = heads - int(finite.sum())
    if outlived:
        said += (
            f" In {count(outlived, 'head')} more than half of the states outlived the run; their half-life is longer "
            "than could be seen (arrows)."
        )
    cut = float(data["censored"].max())
    if cut > 0:
        said += f" At most {share(cut)} of a head's starting points were cut off by the end of the run."
    return said.strip()


def where(array: xr.DataArray, which: str) -> tuple[float, str]:
    """The smallest or largest entry over (layer, head), and whose it is."""
    array = array.transpose("layer", "head")
    values = array.to_numpy()
    index = int(np.nanargmin(values) if which == "min" else np.nanargmax(values))
    row, head = (int(i) for i in np.unravel_index(index, values.shape))
    return float(values[row, head]), f"layer {int(array['layer'][row])}, head {int(array['head'][head])}"


def attention_on_fading(data: xr.Dataset) -> str:
    """Share of the attention mass on fading tokens."""
    mass = data["fading_mass"].dropna("layer", how="all")
    low, high = where(mass, "min"), where(mass, "max")
    return (
        f"Past the first 2W tokens, {share(float(mass.mean()))} of the attention goes to fading tokens on average: "
        f"from {share(low[0])} ({low[1]}) to {share(high[0])} ({high[1]})."
    )


def memory(m: Measured) -> str:
    """Bytes of memory at two lengths."""
    short, long = min(m.memory), max(m.memory)
    a, b = m.memory[short], m.memory[long]
    if a == b:
        return f"While it decodes it carries {nbytes(a)}, whatever the length of the text."
    return f"While it decodes it carries {nbytes(a)} after {short:,} tokens and {nbytes(b)} after {long:,}."


def recall(m: Measured) -> str:
    """How far back values are recalled."""
    assert m.recall is not None
    known = [
        (a, b, float(bits), None if hit is None else float(hit))
        for a, b, bits, hit in zip(
            m.recall["edges"],
            m.recall["edges"][1:],
            m.recall["bits"],
            m.recall.get("accuracy") or [None] * len(m.recall["bits"]),
            strict=False,
        )
        if bits is not None
    ]
    near, far = known[0], known[-1]
    hits = "" if near[3] is None or far[3] is None else f", and guesses {share(near[3])} and {share(far[3])} of them"
    return (
        f"For values that last stood {near[0]} to {near[1]} tokens ago it needs {near[2]:.2f}\u00a0bits a token; for "
        f"those {far[0]} to {far[1]} tokens ago, {far[2]:.2f}\u00a0bits{hits}."
    )


def layers(m: Measured) -> str:
    """Where the Jacobian of a single layer ends or falls; layers of which the same is true are named together."""
    told: dict[str, list[int]] = {}
    for layer, symbol in enumerate(m.subject.model.config.pattern):
        data = m.data[f"layer_influence_{layer}"]
        reach = data["influence_mean"].sel(path="all")
        window = int(data.attrs["window"])
        if symbol == "SWA":
            left = np.flatnonzero(reach.to_numpy() > 0)
            last = int(data["lag"][left[-1]]) if left.size else 0
            said = f"a token reaches to lag {last} (W − 1 = {window - 1}), and the Jacobian is exactly 0 beyond"
        elif symbol == "BMF" and 2 * window + 3 < int(data["lag"].max()):
            sides = [reach.sel(lag=slice(*s)).max() for s in near_edges(window)]
            said = (
                f"the influence goes {fold(float(sides[0]), float(sides[1]))} across W and "
                f"{fold(float(sides[2]), float(sides[3]))} across 2W"
            )
        else:
            continue
        told.setdefault(said, []).append(layer)
    sentences = [
        f"In layer{'s' * (len(which) > 1)} {listed([str(i) for i in which])} {said}" for said, which in told.items()
    ]
    return ". ".join(sentences) + "." if sentences else ""


def near_edges(window: int) -> list[tuple[int, int]]:
    """The four lags before and after W and 2W; behind 2W the convolution blurs three tokens more."""
    return [
        (window - 4, window - 1),
        (window, window + 3),
        (2 * window - 4, 2 * window - 1),
        (2 * window + 3, 2 * window + 6),
    ]


def fold(before: float, after: float) -> str:
    """A change as a factor."""
    if before <= 0 or after <= 0:
        return "to exactly 0"
    return f"{times(before / after)}-fold down" if before >= after else f"{times(after / before)}-fold up"


def parts(data: xr.Dataset) -> str:
    """What a layer's parts are as systems."""
    told = []
    names = {"conv": "convolution", "fading_tokens": "fading tokens", "kv": "keys and values"}
    for part, kind, index, scalars in zip(
        *(data[key].to_numpy().tolist() for key in ("part", "kind", "index", "scalars")), strict=True
    ):
        name = names.get(part, part)
        if index > 0:
            told.append(f"{name}: a shift register, nilpotent of index {index}, {scalars:,} numbers")
        elif part == "eidetic":
            told.append(f"stored tokens and those that wait: held until others take their place, {scalars:,} numbers")
        elif index < 0:
            told.append(f"{name}: a register that is never cut, {scalars:,} numbers a token")
        else:
            shape = "symmetric" if "along_key" in data else "diagonal"
            told.append(f"{name}: {shape}, {kind}, {scalars:,} numbers")
    return "; ".join(told)


def dynamics(layers: Sequence[xr.Dataset]) -> list[str]:
    """What is particular in the transitions of some layers, a sentence each."""
    told = []
    along = [float(value) for each in layers if "along_key" in each for value in _middle(each["along_key"])]
    if along:
        told.append(
            "A gated delta rule decays like that across the key of a token. Along it a write replaces what was held: "
            f"there {min(along):.3f} to {max(along):.3f} is left at the median gates."
        )
    grams = [each for each in layers if each.attrs["state"] == "gka"]
    if grams:
        kept = any(bool((each["gram_decay"] == 1).all()) for each in grams)
        told.append(
            "A Gated KalmaNet carries two matrices, contents and the Gram matrix of their keys, each times "
            f"{'its decay, the latter times 1' if kept else 'the same decay'} in a token; how it reads them is not "
            "linear."
        )
    if any(each.attrs["switched"] == "held" for each in layers):
        told.append(
            "What is stored stays where it is between refreshes, an eigenvalue 1 for each slot; where a chunk ends, it "
            "is kept or replaced, which no single matrix says."
        )
    return told


def _middle(value: xr.DataArray) -> np.ndarray:
    return value.isel(at=value.sizes["at"] // 2).to_numpy()
