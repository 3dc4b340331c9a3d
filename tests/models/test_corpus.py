"""The corpus: its split, its woven lines, and what they say about themselves."""

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic.models import HybridConfig, HybridLM, bits_per_token, score, stdlib_corpus, stdlib_validation
from solomonic.models.corpus import weave
from solomonic.models.evaluation import windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("lib")
    for package in ("alpha", "beta", "test", "encodings"):
        (root / package).mkdir()
        for k in range(30):
            body = f"def {package}_{k}(x):\n    return x + {k}\n\n" * 20
            (root / package / f"m{k}.py").write_text(body)
    return root


def test_left_out_and_split(folder):
    corpus = stdlib_corpus(root=folder, woven=0.0)
    np.testing.assert_array_equal(stdlib_validation(root=folder), corpus.validation_plain)
    text = bytes(corpus.train) + bytes(corpus.validation)
    assert b"alpha_" in text
    assert b"test_" not in text
    assert b"encodings_" not in text
    assert sum(corpus.info["files"].values()) == 60
    assert np.array_equal(corpus.validation, corpus.validation_plain)


def test_same_seed_same_bytes(folder):
    a, b, c = (stdlib_corpus(root=folder, seed=s) for s in (0, 0, 1))
    assert a.info["sha256_train"] == b.info["sha256_train"] != c.info["sha256_train"]


@given(st.integers(0, 1000), st.floats(0.05, 0.4))
def test_woven_lines_refer_back(seed, share):
    plain = b"".join(b"line %d of the text\n" % i for i in range(400))
    text, recall = weave(plain, share, np.random.default_rng(seed))
    kept = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"# "))
    assert kept == plain
    assert len(recall) > 0
    for position, distance in recall:
        assert distance > 0
        assert text[position : position + 1] == text[position - distance : position - distance + 1]
        assert text[position : position + 1].isdigit()
    woven = len(text) - len(plain)
    assert abs(woven / len(text) - share) < 0.15


def test_batches_are_a_function_of_the_step(folder):
    corpus = stdlib_corpus(root=folder)
    a, b = corpus.batches(3, 32, seed=1), corpus.batches(3, 32, seed=1)
    assert torch.equal(a(5), b(5))
    assert not torch.equal(a(5), a(6))
    assert a(5).shape == (3, 33)
    with pytest.raises(ValueError, match="context"):
        corpus.batches(1, 10**9)


def test_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="too few"):
        stdlib_corpus(root=tmp_path)
    with pytest.raises(ValueError, match="woven"):
        stdlib_corpus(woven=0.9)


@pytest.fixture(scope="module")
def bytes_model():
    config = HybridConfig(pattern=("SWA",), vocab_size=256, hidden_size=16, intermediate_size=16,
                          num_attention_heads=2, num_key_value_heads=2, head_dim=8, swa_window=8)  # fmt: skip
    return HybridLM(config, rng=0).requires_grad_(False)


def test_windows_predict_each_byte_once():
    text = np.arange(100, dtype=np.uint8)
    rows = windows(text, 16)
    predicted = rows[:, 1:].flatten().numpy()
    assert np.array_equal(predicted, np.arange(1, len(predicted) + 1))
    assert len(windows(text, 16, most=3)) == 3


def test_bits_per_token(bytes_model):
    rows = torch.randint(256, (3, 20), generator=torch.Generator().manual_seed(0))
    bits = bits_per_token(bytes_model, rows, batch_size=2)
    logits = bytes_model(rows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    assert bits.shape == (3, 19)
    assert abs(bits.mean().item() * np.log(2) - loss.item()) < 1e-5


def test_score_knows_a_model_that_recalls(folder, bytes_model):
    corpus = stdlib_corpus(root=folder, woven=0.3)

    class Oracle:
        """Predicts every byte of the woven validation text, from a lookup of the 16 bytes before it."""

        def __init__(self):
            self.text = bytes(corpus.validation)

        def __call__(self, ids):
            logits = torch.zeros(*ids.shape, 256)
            for i, row in enumerate(ids.tolist()):
                start = self.text.find(bytes(row))
                for t in range(len(row)):
                    logits[i, t, self.text[start + t + 1]] = 50.0
            return type("Out", (), {"logits": logits})

    card = score(cast(HybridLM, Oracle()), corpus, context=400)
    assert sum(card["recall"]["count"]) > 50
    assert all(a == 1.0 for a in card["recall"]["accuracy"] if a is not None)
    blind = score(bytes_model, corpus, context=400)
    assert blind["recall"]["count"] == card["recall"]["count"]
    assert max(a for a in blind["recall"]["accuracy"] if a is not None) < 0.3
    assert blind["bits_per_byte_by_position"]["edges"][-1] == 400
    by_context = blind["bits_per_byte_by_context"]
    assert by_context["context"][-1] == 400 - 64
    # A window of 8 tokens in one layer: what stands more than 7 bytes before makes no difference at all.
    assert by_context["bits"][1:] == pytest.approx([by_context["bits"][1]] * len(by_context["bits"][1:]), abs=1e-6)
    assert by_context["bits"][0] != by_context["bits"][1]
