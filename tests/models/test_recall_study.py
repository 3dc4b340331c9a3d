"""The recall study: resumable runs whose results say what was measured."""

import dataclasses
import json

import pytest
import torch

from solomonic.models import HybridLM, load, with_eidetic
from solomonic.models.recall_study import SMOKE, STUDIED, RecallStudy, accuracy, recall_results, run_recall_study
from solomonic.models.tasks import TaskRows

TINY = dataclasses.replace(SMOKE, steps=2, rows=8, models=("swa", "bmojo-4"), length=40, window=4, batch_size=2)


def test_runs_are_kept_and_gone_on_with(tmp_path):
    some = dataclasses.replace(TINY, models=("swa",))
    first = run_recall_study(tmp_path, some, progress=False)
    assert [r["model"] for r in first] == ["swa"]
    when = (tmp_path / "swa-2-slow-0" / "result.json").stat().st_mtime_ns
    both = run_recall_study(tmp_path, TINY, progress=False)
    assert sorted(r["model"] for r in both) == ["bmojo-4", "swa"]
    assert (tmp_path / "swa-2-slow-0" / "result.json").stat().st_mtime_ns == when
    assert not list(tmp_path.glob("*/step-*"))
    (result,) = (r for r in both if r["model"] == "bmojo-4")
    model = load(tmp_path / "bmojo-4-2-slow-0")
    rows = TINY.task(TINY.rows, 2, [0, 1 << 40])
    assert result["accuracy"] == accuracy(model, rows)
    assert result["by_budget"]["4"][0] == result["accuracy"]
    assert result["memory_nbytes"] == model(rows.ids[:1]).memory.nbytes
    with pytest.raises(ValueError, match="holds a study with"):
        run_recall_study(tmp_path, dataclasses.replace(TINY, steps=3), progress=False)
    assert run_recall_study(tmp_path / "none", TINY, minutes=-1, progress=False) == []
    with pytest.raises(FileNotFoundError, match="solomonic recall"):
        recall_results(tmp_path / "nowhere")
    assert json.loads((tmp_path / "study.json").read_text())["window"] == 4


def test_accuracy_counts_questions_alone():
    class Says(torch.nn.Module):
        def forward(self, ids):
            return type("Out", (), {"logits": torch.nn.functional.one_hot(ids + 1, 6).float()})()

    ids = torch.tensor([[0, 1, 2, 3]])
    rows = TaskRows(ids, torch.tensor([[-100, 2, 9, 4]]), torch.tensor([[-1, 1, 2, 7]]), 6)
    assert accuracy(Says(), rows) == pytest.approx(2 / 3)
    assert accuracy(Says(), rows, lags=(2, 2)) == 0
    assert accuracy(Says(), rows, lags=(5, 9)) == 1


def test_every_studied_model_can_be_built():
    study = RecallStudy()
    for name in STUDIED:
        assert HybridLM(study.config(name), rng=0).config.pattern == STUDIED[name][0]
    with pytest.raises(ValueError, match="models: expected names among attention"):
        RecallStudy(models=("rnn",))
    with pytest.raises(ValueError, match="decays: expected"):
        RecallStudy(decays=("fast",))


def test_decays_are_tried_once():
    study = RecallStudy()
    known = {("mamba2-32", "slow"): 0.9, ("mamba2-32", "default"): 0.2}
    known |= {("bmojo-f", "slow"): 0.3, ("bmojo-f", "default"): 0.4}
    runs = study.runs(known)
    assert len(runs) == len({tuple(r.values()) for r in runs}) == len(study.runs({}))
    assert len(runs) == len(study.pairs) * 3 * len(study.models) + 2  # each once for pairs and seed, and two trials
    order = [(study.pairs.index(r["pairs"]), r["seed"]) for r in runs]
    assert order == sorted(order)
    for run in runs:
        if (run["pairs"], run["seed"]) != (study.pairs[0], study.seeds[0]):
            assert run["decay"] == ("default" if run["model"].startswith("bmojo") else "slow")
    waiting = {r["model"] for r in study.runs({}) if r["decay"] is None}
    assert waiting == set(study.models) - {"attention", "swa"}
    alone = dataclasses.replace(study, models=("bmojo-16",))
    assert [r["decay"] for r in alone.runs({})[:3]] == ["slow", "default", None]


def test_a_run_ends_when_the_task_is_learned(tmp_path):
    easy = dataclasses.replace(TINY, models=("attention",), length=16, window=4, pairs=(1,), steps=400, batch_size=8)
    (result,) = run_recall_study(tmp_path, easy, progress=False)
    assert result["steps"] < 400
    assert result["accuracy"] > 0.9


def test_stored_tokens_are_swapped_at_evaluation(tmp_path):
    some = dataclasses.replace(TINY, models=("bmojo-4", "bmojo-random-16"))
    results = {r["model"]: r for r in run_recall_study(tmp_path, some, progress=False)}
    rows = some.task(some.rows, 2, [0, 1 << 40])
    for name, key in (("bmojo-4", "by_budget"), ("bmojo-random-16", "by_budget_random")):
        model = load(tmp_path / f"{name}-2-slow-0")
        for tokens in (0, 8):
            other = with_eidetic(model, tokens, norm="random" if key == "by_budget_random" else None)
            far = accuracy(other, rows, lags=(17, 40))
            assert results[name][key][str(tokens)] == [accuracy(other, rows), far]
    assert results["bmojo-random-16"]["by_budget"] == results["bmojo-random-16"]["by_budget_random"]
