"""What the figures about the memories say, in sentences that carry the measured numbers."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .measure import Measured
from .say import count, listed, share, small, times

_PARTS = {"fading_tokens": "fading tokens", "kv": "keys and values", "conv": "convolution", "eidetic": "stored tokens"}


def part_name(part: str) -> str:
    """The name of a part of the memory as one says it."""
    return _PARTS.get(part, part)


def not_measured(m: Measured) -> str:
    """The probes that ask for a memory that the model does not have."""
    data, told = m.data, []
    if "sensitivity" not in data:
        return "Its memories were not measured: how much of them is used, seen, moved and needed (memories=False)."
    if "observability" not in data:
        told.append(
            "It has no state space state: what is seen, moved, held and needed of one does not apply, nor do unsaid "
            "states, steering and smaller states."
        )
    elif "compression" not in data:
        told.append("Its states are not those of Mamba2 layers, so that they cannot be rebuilt smaller.")
    if "fading_by_memory" not in data:
        told.append("Its memory has one part only, which carries all of the influence.")
    if "decay_law" not in data:
        told.append("Too few windows or lags, or no influence at all: no law of decay was compared.")
    return " ".join(told)


def sizes(data: xr.Dataset, part: str) -> str:
    """Directions in use of a part, by layer."""
    found = data.sel(part=part)
    order, nominal = found["order"].mean(("prompt", "head", "cut")), found["nominal"].mean(("prompt", "head", "cut"))
    told = [
        f"{float(order.sel(layer=layer)):.1f} of {float(nominal.sel(layer=layer)):.0f} in layer {layer}"
        for layer in data["layer"].to_numpy()
        if np.isfinite(float(order.sel(layer=layer)))
    ]
    what = "a head's state" if part == "state" else "what a head reads from its registers"
    return f"Of {what} it uses on average {listed(told)}."


def distances(data: xr.Dataset) -> str:
    """How far back heads read."""
    told = []
    for part in data["part"].to_numpy().tolist():
        value = data["distance"].sel(part=part).mean("prompt").to_numpy()
        value = value[np.isfinite(value)]
        if value.size:
            who = "state space heads" if part == "state" else "attention heads"
            told.append(
                f"{who} read {small(float(value.min()))} to {small(float(value.max()), 'tokens')} back on average "
                f"(median {small(float(np.median(value)))})"
            )
    text = " At the gates of the run ".lstrip() + "; ".join(told) + "."
    slow = data["lyapunov"].to_numpy()
    slow = slow[np.isfinite(slow)]
    if slow.size:
        text += f" The slowest state decays by {small(float(-slow.max()), 'nat')} a token, the fastest by "
        text += f"{small(float(-slow.min()), 'nat')}."
    return text


def curves(data: xr.Dataset) -> str:
    """The sums of the Fisher curves, against their theorem."""
    told = []
    for part in data["part"].to_numpy().tolist():
        total = data["fisher_total"].sel(part=part).to_numpy()
        total = total[np.isfinite(total)]
        size = data["nominal"].sel(part=part).to_numpy()
        if total.size:
            what = "state" if part == "state" else "register"
            told.append(f"{small(float(np.median(total)))} for a {what} of {np.nanmax(size):.0f} numbers")
    return (
        f"Summed over all lags, the Fisher information is {listed(told)}. Theory says exactly 1 for a head with one "
        "decay, however large its state; a register gives 1 / (k + 1) at lag k, and as much as it holds where noise is "
        "small: the difference between fading and exact memory in one number. (The largest deviation from the theorem "
        f"here: {small(float(data.attrs['normal_error']))}.)"
    )


def decoded(data: xr.Dataset) -> str:
    """What a linear read-out finds of the text's own inputs."""
    found = data["decoded"].mean("head")
    if not bool(found.notnull().any()):
        return "With one window there is none to hold out, so that no inputs were decoded."
    lag = int(data["decoded_lag"][0])
    near = found.sel(decoded_lag=lag)
    now = data["decoded_now"].mean("head").sel(decoded_lag=lag)
    best = int(near.fillna(-np.inf).argmax("layer"))
    return (
        f"Of the text's own inputs {count(lag, 'token')} ago a linear read-out of the state finds at most "
        f"{share(max(float(near[best]), 0.0))} of the variance (layer {int(data['layer'][best])}), in windows that it "
        f"was not fitted to; the current input alone tells {share(max(float(now[best]), 0.0))} of it."
    )


def law(data: xr.Dataset) -> str:
    """The best law, its parameters, and whether others are as good."""
    best = str(data.attrs["best"])
    value = data["value"].sel(law=best)
    shown = [
        f"{parameter} {small(float(value.sel(parameter=parameter)), '' if unit == '1' else unit)}"
        for parameter, unit in zip(data["parameter"].to_numpy(), data["unit"].to_numpy(), strict=True)
        if np.isfinite(float(value.sel(parameter=parameter)))
    ]
    decided = str(data.attrs["decided"])
    tail = (
        "All other laws are behind by more than two standard errors."
        if decided == "yes"
        else f"It cannot be told {decided.removeprefix('not ')} on these windows."
    )
    name = best.replace("+", " with a ")
    return f"Of seven laws the one that best predicts windows it was not fitted to is {name}: {listed(shown)}. {tail}"


def paths(data: xr.Dataset) -> str:
    """Which part carries most, near and far."""
    told = []
    lags = data["lag"].to_numpy()
    found = data["share"].transpose("part", "lag").to_numpy()
    for place in (0, lags.size - 1) if lags.size > 1 else (0,):
        column = found[:, place]
        if not np.isfinite(column).any():
            told.append(f"at lag {lags[place]} nothing arrives")
            continue
        order = np.argsort(-np.nan_to_num(column, nan=-np.inf))[:2]
        parts = [f"{part_name(str(data['part'].to_numpy()[i]))} {share(float(column[i]))}" for i in order]
        told.append(f"at lag {lags[place]} {listed(parts)}")
    ahead = int(data.attrs["ahead"])
    when = "When the last token is read" if ahead == 1 else f"Across a cut {ahead} tokens before the last"
    return f"{when}, the influence is carried by: {'; '.join(told)}."


def seen(data: xr.Dataset) -> str:
    """How many directions of the states show, and what share of the states lies in them."""
    told = []
    for layer in data["layer"].to_numpy():
        one = data.sel(layer=layer)
        rank = float(one["rank"].mean("prompt"))
        if float(one["energy"].max()) == 0:
            told.append(f"layer {layer}: nothing at all")
            continue
        least = "at least " if bool(one["saturated"].any()) else ""
        told.append(
            f"layer {layer}: {least}{rank:.0f} directions of {int(one['nominal'].isel(prompt=0)):,}, with "
            f"{share(float(one['seen_share'].mean('prompt')))} of its norm squared"
        )
    return (
        f"Of the states after a text the next {data.attrs['horizon']} logits show, above {data.attrs['tol']:g} of the "
        f"strongest and among the {data.sizes['direction']} that were computed: {'; '.join(told)}."
    )


def reached(data: xr.Dataset) -> str:
    """How many directions the last inputs move."""
    told = [
        f"{'at least ' if bool(data['saturated'].sel(layer=layer)) else ''}{int(data['rank'].sel(layer=layer))} in "
        f"layer {layer}"
        for layer in data["layer"].to_numpy()
    ]
    tol = f"{data.attrs['tol']:g}"
    return (
        f"Of the directions of the states the last {data.attrs['span']} inputs, moved freely, move more than {tol} of "
        f"what they move most: {listed(told)}."
    )


def plateau(data: xr.Dataset) -> str:
    """Over which sizes the derivative is to be trusted."""
    told = []
    for side, what in (("observability", "the state"), ("controllability", "the embeddings")):
        scales = str(data.attrs[f"plateau_{side}"])
        told.append(
            f"for differences of {scales} of {what}" if scales != "none" else f"for no measured difference of {what}"
        )
    return (
        f"The whole model, bent as it is, agrees with its derivative within {share(float(data.attrs['tol']))} "
        f"{listed(told)}."
    )


def unsaid(data: xr.Dataset) -> str:
    """Two states that differ and say the same."""
    amount = float(data["amount"])
    horizon = int(data.attrs["horizon"])
    if amount == 0:
        return (
            f"No change of the unsaid part of the state of layer {data.attrs['layer']} keeps the next {horizon} tokens."
        )
    kl = data["kl"].max("time")
    agreeing = data["agreeing"]
    most = float(kl.sel(kind="unsaid"))
    return (
        f"Two states of layer {data.attrs['layer']} that differ by {share(amount)} of their norm say the same next "
        f"{count(horizon, 'token')}; {share(float(data['unsaid_share']))} of the norm squared of the state lies "
        f"outside of what shows. The divergence stays below {small(most, 'bits')}; a random change of that size "
        f"reaches "
        f"{small(float(kl.sel(kind='random')), 'bits')}, one along the most visible direction "
        f"{small(float(kl.sel(kind='said')), 'bits')} and changes "
        + ("no token." if int(agreeing.sel(kind="said")) == horizon else f"token {int(agreeing.sel(kind='said')) + 1}.")
    )


def apart(name: str, data: xr.Dataset) -> str:
    """How soon memories can be told apart."""
    alike = data["alike"].to_numpy()
    low, high = (float(each) for each in data["alike_interval"].isel(after=-1).to_numpy())
    between = f" (interval {share(low)} to {share(high)})" if np.isfinite(low + high) else ""
    last = int(data["after"][-1])
    return (
        f"Of {data.sizes['memory']} {name}, {share(float(alike[1]))} of the pairs have said the same after one token "
        f"and {share(float(alike[-1]))}{between} after {last}, in {count(int(data['classes'][-1]), 'group')}."
    )


def steered(data: xr.Dataset) -> str:
    """How near an input comes to a target state, and what tokens make of it."""
    gap = float(data["gap"][-1])
    nearest = float(data["gap_tokens"])
    return (
        f"Moving its last {data.attrs['span']} embeddings freely brings the state of layer {data.attrs['layer']} to "
        f"{share(gap)} of its distance from that of another window, at an energy of "
        f"{small(float(data['move_energy']))} (the bound of the linear model: {small(float(data['energy_bound']))}). "
        f"With the nearest tokens in place "
        f"{share(nearest)} of the distance is left: tokens are a finite set of points."
    )


def smaller(data: xr.Dataset) -> str:
    """What smaller states cost."""
    orders = data["order"].to_numpy()
    cost = data["cost"].to_numpy()
    low, high = data["cost_interval"].transpose("bound", "order").to_numpy()
    proposed = f"{float(data['proposed'].mean()):.0f} of {data.sizes['mode']}"
    told = (
        f"The order that holds {share(float(data.attrs['share']))} of the spectrum keeps {proposed} directions of each "
        f"head and costs {percent(cost[0])} of the bits ({percent(low[0])} to {percent(high[0])})."
    )
    cheap = [i for i in range(1, orders.size) if cost[i] < 0.01]
    if cheap:
        i = min(cheap, key=lambda i: orders[i])
        told += (
            f" {int(orders[i])} of each head cost {percent(cost[i])} ({percent(low[i])} to {percent(high[i])}), the "
            "least under 1 % that was tried."
        )
    return told


def percent(value: float) -> str:
    """A relative cost, signed."""
    return f"{100 * value:+.2f}\u00a0%".replace("-", "−")


def selecting(data: xr.Dataset) -> str:
    """Full against frozen derivatives of the logits."""
    ratio = data["ratio"].sel(target="logits")
    lags = data["lag"].to_numpy()
    told = []
    for lag in (1, *(k for k in (16, 128) if k <= lags[-1])):
        value = float(ratio.sel(lag=lag)) if lag in lags else np.nan
        if np.isfinite(value):
            told.append(f"{times(value)} times at lag {lag}")
    if not told:
        return "At frozen gates nothing of an earlier input reaches the logits: all of its influence is selection."
    return (
        f"The whole derivative of the logits is {listed(told)} that at frozen gates (steps, input and read-out maps, "
        "weights of attention): the rest is what selecting adds."
    )


def exponents(data: xr.Dataset) -> str:
    """The exponents of the full map, and those at frozen gates."""
    top = float(data["exponent"][0])
    if not np.isfinite(top):
        return (
            "Differences between memories are exactly gone after finitely many tokens: their exponents are minus "
            "infinity, as registers have it."
        )
    told = f"The slowest difference between two memories changes by {small(top, 'nat')} a token"
    error = float(data["exponent_error"][0])
    if np.isfinite(error):
        told += f" (standard error {small(error)})"
    frozen = float(data["frozen"][0])
    if np.isfinite(frozen):
        return f"{told}; at frozen gates the slowest head has {small(frozen, 'nat')}. For a long text the two are one."
    return told + "."


def heads(data: xr.Dataset) -> str:
    """That all splits are certain, and how good they are."""
    sure, total = int(data["certified"].sum()), int(data["certified"].size)
    return (
        f"Each head with a window of {data.attrs['small_window']} tokens is a matrix; its Fitting split into a "
        f"nilpotent part and a core is certain for {sure} of {total} heads, and its spectrum is what the gates say"
        f"{', with 1 for what is held,' if bool(data['held'].any()) else ''} to within "
        f"{small(float(np.nanmax(data['spectrum_error'].to_numpy())))}."
    )
