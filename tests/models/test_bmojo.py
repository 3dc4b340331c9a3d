"""BMO layers against Algorithm 1 written out, and what can be done to what they store."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from solomonic.kernels import select_innovations
from solomonic.models import HybridLM, evict, insert, stored_tokens, with_eidetic
from solomonic.models.mixers.bmojo import BMojo

from .small import VARIANTS, small_config, small_model, tokens

BMO = [name for name in VARIANTS if VARIANTS[name]["pattern"] == "BMO-BMO"]


def algorithm_1(scores, size, window, boundary):
    """The memory at a boundary: tokens come as they leave the window, and replace the least if they exceed it."""
    stored = []
    for j in range(boundary - window + 1):
        if len(stored) < size:
            stored.append(j)
        elif size:
            least = min(stored, key=lambda i: (scores[i], -i))  # of several, the youngest
            if scores[j] > scores[least]:
                stored[stored.index(least)] = j
    return set(stored)


def test_selection_is_algorithm_1_in_200_random_cases():
    rng = torch.Generator().manual_seed(0)

    def number(low, high):
        return int(torch.randint(low, high, (), generator=rng))

    for _ in range(200):
        window, size, length = number(1, 7), number(0, 6), number(1, 40)
        scores = torch.randint(number(1, 30), (1, length), generator=rng).double()  # with ties
        whole = select_innovations(None, score=scores, size=size, window=window)
        enter, leave = whole.enter[0], whole.exit[0]
        for boundary in range(0, length + 1, window):
            read = {j for j in range(length) if enter[j] <= boundary < leave[j]}
            assert read == algorithm_1(scores[0].tolist(), size, window, boundary)
        cuts = sorted({0, length, *(number(0, length) for _ in range(4))})
        state, positions, spans = None, torch.zeros(0, dtype=torch.int64), {}
        for a, b in pairwise(cuts):
            part = select_innovations(None, score=scores[:, a:b], size=size, window=window, state=state)
            positions = torch.cat([positions, torch.arange(a, b)])
            for j, first, last in zip(positions.tolist(), part.enter[0].tolist(), part.exit[0].tolist(), strict=True):
                if first < last:
                    spans[j] = (first, last)
            positions, state = positions[part.kept[0]], part.state
        assert spans == {
            j: (e, x) for j, (e, x) in enumerate(zip(enter.tolist(), leave.tolist(), strict=True)) if e < x
        }


def written_out(layer: BMojo, h, tables):
    """A BMO layer from its definition, query by query: which keys it may read, and one softmax over them."""
    config, window = layer.config, layer.window
    f, _ = layer.ssm(h, layer.empty(1, h), tables)
    at = tables
    if config.bmojo_positions == "none":
        at = tables._replace(cos=torch.ones_like(tables.cos), sin=torch.zeros_like(tables.sin))
    q, q_fading, inputs, fading = layer.bmojo_attn.project(h, f, at)
    q_fading = q if q_fading is None else q_fading
    scores = []
    for t in range(h.shape[1]):
        before = f[0, max(0, t - config.innovation_span) : t]
        error = torch.linalg.vector_norm(f[0, t] - (before.mean(0) if t else 0))
        scores.append(
            (error / torch.linalg.vector_norm(f[0, t]) if config.innovation_norm == "relative" else error).item()
        )
    groups = config.num_attention_heads // config.num_key_value_heads
    outputs = []
    for t in range(h.shape[1]):
        start = t // window * window
        near = range(max(0, t - window + 1), t + 1)
        if layer.sliding:
            far = range(max(0, t - 2 * window + 1), max(0, t - window + 1))
        else:
            far = range(max(0, start - layer.fading), start)
        exact = sorted(algorithm_1(scores, layer.size, window, start))
        heads = []
        for a in range(config.num_attention_heads):
            g = a // groups
            logits = [q[0, t, a] @ inputs.key[0, j, g] for j in (*near, *exact)]
            logits += [q_fading[0, t, a] @ fading.key[0, j, g] for j in far]
            values = [inputs.value[0, j, g] for j in (*near, *exact)] + [fading.value[0, j, g] for j in far]
            weights = (torch.stack(logits) / config.head_dim**0.5).softmax(0)
            heads.append(weights @ torch.stack(values))
        outputs.append(torch.cat(heads))
    return layer.bmojo_attn.o_proj(torch.stack(outputs))[None]


@pytest.mark.parametrize("name", [n for n in BMO if n != "bmojo-random-gka"])
def test_a_layer_is_its_definition(name):
    from solomonic.models.rope import rotary_tables

    model = small_model(name)
    layer = model.layers[0].mixer
    assert isinstance(layer, BMojo)
    h = torch.randn(1, 23, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tables = rotary_tables(model.config, 0, 23, h)
    out, _ = layer(h, layer.empty(1, h), tables)
    assert (out - written_out(layer, h, tables)).abs().max() < 1e-12


def test_without_stored_tokens_it_is_bmojo_f():
    model = small_model("bmojo-f")
    ids = tokens(2, 24)
    assert torch.equal(with_eidetic(model, 0)(ids).logits, model(ids).logits)
    more = with_eidetic(model, 3)(ids).logits
    assert torch.equal(more[:, :5], model(ids).logits[:, :5])  # nothing is stored before the first refresh
    assert not torch.allclose(more, model(ids).logits)
    assert torch.equal(with_eidetic(with_eidetic(model, 3), 0)(ids).logits, model(ids).logits)
    frozen = small_model("bmojo-paper")
    assert torch.equal(with_eidetic(frozen, 3)(ids).logits, frozen(ids).logits)
    with pytest.raises(ValueError, match=r"expected BMF or BMO layers, its pattern is M2-M2"):
        with_eidetic(small_model("mamba2"), 3)


@pytest.mark.parametrize("name", ["bmojo-f", *BMO])
def test_another_budget_shares_parameters_and_leaves_them_frozen(name):
    model = small_model(name)
    model.requires_grad_(False)
    trained = next(model.layers[0].mixer.parameters()).requires_grad_(True)
    other = with_eidetic(model, 3)
    assert [p for p in model.parameters() if p.requires_grad] == [trained]
    assert [p.data_ptr() for p in other.parameters() if p.requires_grad] == [trained.data_ptr()]
    assert {p.data_ptr() for p in other.parameters()} == {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize("name", BMO)
def test_memory_stops_growing(name):
    model = small_model(name)
    window = model.config.bmojo_window
    memory, sizes = None, []
    for t in range(8 * window):
        memory = model(tokens(1, 1, seed=t), memory=memory).memory
        sizes.append(memory.nbytes)
        assert memory.nbytes == model.memory_nbytes(t + 1)
    assert sizes[-2 * window : -window] == sizes[-window:]  # the tokens that wait come and go with a period of W


def test_stored_tokens_have_position_score_and_time():
    model = small_model("bmojo")
    seen = {}
    memory = model(tokens(2, 33), record=lambda i, n, v: seen.update({(i, n): v})).memory
    for layer in range(2):
        found, score = stored_tokens(memory, layer), seen[layer, "innovation"]
        window, size = 5, 4
        for b in range(2):
            stored = [int(p) for p, a in zip(found.position[b], found.admitted[b], strict=True) if a > 0]
            assert set(stored) == algorithm_1(score[b].tolist(), size, window, 30)
            assert torch.equal(found.score[b, :size], score[b, found.position[b, :size]])
            assert (found.admitted[b, :size] % window == 0).all()
            assert (found.admitted[b, :size] >= found.position[b, :size] + window).all()
            assert (found.score[b, :size].diff() <= 0).all()


def test_evicted_tokens_are_not_read_and_inserted_ones_are():
    model = small_model("bmojo")
    memory, ids = model(tokens(1, 31)).memory, tokens(1, 3, seed=9)
    plain = model(ids, memory=memory).logits
    found = stored_tokens(memory, 0)
    gone = evict(memory, 0, found.position[0, :4].tolist())
    assert stored_tokens(gone, 0).position[0, :4].tolist() == [-1] * 4
    without = model(ids, memory=gone).logits
    assert (without - plain).abs().max() > 1e-6
    back = gone
    for slot in range(4):
        back = insert(back, 0, found.key[:, slot], found.value[:, slot], position=int(found.position[0, slot]))
    assert (model(ids, memory=back).logits - plain).abs().max() < 1e-12
    # Values that are zero leave a trace of their key alone; other values are read.
    strange = insert(memory, 0, found.key[:, 0], 50 + found.value[:, 0], position=2, score=7.0)
    assert 2 in stored_tokens(strange, 0).position[0].tolist()
    assert (model(ids, memory=strange).logits - plain).abs().max() > 1e-3
    with pytest.raises(ValueError, match="positions: layer 0 holds tokens of the positions"):
        evict(memory, 0, 10**6)
    with pytest.raises(ValueError, match=r"key: expected shape \[B, Hkv, D\]"):
        insert(memory, 0, found.key, found.value, position=1)
    with pytest.raises(ValueError, match="stores no token yet"):
        insert(model(tokens(1, 3)).memory, 0, found.key[:, 0], found.value[:, 0], position=1)
    with pytest.raises(ValueError, match="part: layer 0 has"):
        stored_tokens(small_model("mamba2")(ids).memory, 0)


def test_gradients_reach_stored_tokens_and_not_their_scores():
    model = small_model("bmojo").requires_grad_(True)
    memory = model(tokens(1, 31)).memory
    found = stored_tokens(memory, 0)
    assert found.key.requires_grad
    assert not found.score.requires_grad
    leaf = found.value.detach().clone().requires_grad_(True)
    model(tokens(1, 1), memory=memory.detach().set(0, "eidetic", found._replace(value=leaf))).logits.sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad[0, :4].abs().amax((1, 2)) > 0).all()
    assert (leaf.grad[0, 4:] == 0).all()  # tokens that wait are not read


def test_the_control_stores_whatever_comes():
    model = small_model("bmojo-random-gka")
    found = [stored_tokens(model(tokens(1, 40, seed=s)).memory, 0).position for s in (1, 2)]
    assert torch.equal(*found)
    novel = HybridLM(dataclasses.replace(model.config, innovation_norm="l2")).double()
    novel.load_state_dict(model.state_dict())
    found = [stored_tokens(novel(tokens(1, 40, seed=s)).memory, 0).position for s in (1, 2)]
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fading_tokens": 6}, "fading_tokens: expected an integer from 0 to bmojo_window = 5, got 6"),
        ({"fading_tokens": -1}, "fading_tokens: expected"),
        ({"eidetic_tokens": -2}, "eidetic_tokens: expected an integer of at least 0, got -2"),
        ({"eidetic_tokens": 1.5}, "eidetic_tokens: expected"),
        ({"innovation_span": 0}, "innovation_span: expected a positive integer, got 0"),
        ({"innovation_norm": "l1"}, "innovation_norm: expected one of l2, relative, random, got 'l1'"),
        ({"bmojo_positions": "alibi"}, "bmojo_positions: expected one of rope, none"),
    ],
)
def test_refused(option, message):
    with pytest.raises(ValueError, match=message):
        small_config("bmojo", **option)
