"""The softmax read-out of registers, in float64 from queries, keys and values: what attention is checked against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["blocks", "weights_by_lag"]

#: Multiply-adds of one check; beyond that, rows are sampled.
_WORK = 1 << 31
_BLOCK = 128


def spans(first: int, stop: int, window: int | None) -> tuple[range, range]:
    """Positions that queries ``first .. stop-1`` may read from the window, and from the fading tokens."""
    if window is None:
        return range(stop), range(0)
    near = range(max(first - window + 1, 0), stop)
    return near, range(max(first - 2 * window + 1, 0), max(stop - window, 0))


def scores(
    q: np.ndarray, k: np.ndarray, positions: np.ndarray, keys: range, lags: tuple[int, int], offset: int
) -> np.ndarray:
    """Scaled scores [B, H, rows, keys], minus infinity where the lag lies outside ``lags`` (first, stop).

    q is [B, rows, H, K], k is [B, S, Hkv, K] whose first entry stands at position ``offset``.
    """
    part = k[:, keys.start - offset : keys.stop - offset]
    batch, rows, heads, width = q.shape
    groups = part.shape[2]
    grouped = q.reshape(batch, rows, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)
    score = np.matmul(grouped, part.transpose(0, 2, 3, 1)[:, :, None]) / np.sqrt(width)
    lag = positions[:, None] - np.arange(keys.start, keys.stop)
    score = np.where((lag >= lags[0]) & (lag < lags[1]), score, -np.inf)
    return score.reshape(batch, heads, rows, len(keys))


def blocks(
    taps: Mapping[str, np.ndarray], window: int | None, offset: int, rows: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, read-out [B, rows, H, V], share of the fading tokens [B, rows, H]) block by block.

    ``taps`` has q [B, T, H, K] for the last T positions, k and v [B, S, Hkv, .], and where there are fading tokens
    k_fading, v_fading and perhaps q_fading. ``offset`` is the position of the first query.
    """
    q, k, v = taps["q"], taps["k"], taps["v"]
    length = q.shape[1]
    rows = np.arange(length) if rows is None else rows
    for chosen in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        for start in range(0, len(chosen), _BLOCK):
            part = chosen[start : start + _BLOCK]
            yield part, *_block(taps, q, k, v, window, offset, part)


def _block(taps, q, k, v, window, offset, rows):
    total = offset + q.shape[1]
    positions = rows + offset
    near, far = spans(int(positions[0]), int(positions[-1]) + 1, window)
    begin = total - k.shape[1]
    near = range(max(near.start, begin), near.stop)
    stop = window if window is not None else total + 1
    near_scores = scores(q[:, rows], k, positions, near, (0, stop), begin)
    parts = [(near_scores, v[:, near.start - begin : near.stop - begin])]
    if "k_fading" in taps and len(far):
        assert window is not None
        kf, vf = taps["k_fading"], taps["v_fading"]
        begin = total - kf.shape[1]
        far = range(max(far.start, begin), max(far.stop, begin))
        qf = taps.get("q_fading", q)
        far_scores = scores(qf[:, rows], kf, positions, far, (window, 2 * window), begin)
        parts.append((far_scores, vf[:, far.start - begin : far.stop - begin]))
    top = np.max(np.concatenate([s for s, _ in parts], -1), -1, keepdims=True)
    weights = [np.exp(s - top) for s, _ in parts]
    sums = [w.sum(-1) for w in weights]
    total_weight = np.sum(sums, 0)
    out = 0.0
    for w, values in zip(weights, [values for _, values in parts], strict=True):
        groups = values.shape[2]
        batch, heads, count, span = w.shape
        grouped = w.reshape(batch, groups, heads // groups, count, span)
        out = out + np.matmul(grouped, values.transpose(0, 2, 1, 3)[:, :, None]).reshape(batch, heads, count, -1)
    out = out / total_weight[..., None]
    share = sums[1] / total_weight if len(sums) == 2 else np.zeros_like(total_weight)
    return out.transpose(0, 2, 1, 3), share.transpose(0, 2, 1)


def rows_to_check(length: int, reach: int, heads: int, width: int, batch: int) -> np.ndarray:
    """All rows where that is cheap, else as many evenly spaced ones as are, the last among them."""
    per_row = batch * heads * width * reach * 4
    count = int(min(length, max(16, _WORK // max(per_row, 1))))
    return np.unique(np.rint(np.linspace(length - 1, 0, count)).astype(np.int64))


def weights_by_lag(
    taps: Mapping[str, np.ndarray], window: int | None, offset: int, rows: np.ndarray, head: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [B, rows, lags] of one head, and which lags are fading tokens.

    Lag 0 is the query's own token; lags W .. 2W-1 are fading tokens where the layer has them. Weights of positions
    that do not exist are 0.
    """
    q, k = taps["q"], taps["k"]
    total = offset + q.shape[1]
    positions = rows + offset
    count = window if window is not None else int(positions.max()) + 1
    lags = np.arange(count)
    found = [_gather(q, k, total, positions, rows, lags, head)]
    if "k_fading" in taps:
        assert window is not None
        qf = taps.get("q_fading", q)
        found.append(_gather(qf, taps["k_fading"], total, positions, rows, lags + window, head))
    score = np.concatenate(found, -1)
    weight = np.exp(score - score.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    return weight, np.arange(score.shape[-1]) >= count


def _gather(q, k, total, positions, rows, lags, head):
    begin = total - k.shape[1]
    place = positions[:, None] - lags[None] - begin
    kv_head = head // (q.shape[2] // k.shape[2])
    keys = k[:, np.maximum(place, 0), kv_head]
    score = np.einsum("brk,brlk->brl", q[:, rows, head], keys) / np.sqrt(q.shape[3])
    return np.where((place >= 0) & (positions[:, None] >= lags[None]), score, -np.inf)
