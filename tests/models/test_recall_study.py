"""The recall study: resumable runs whose results say what was measured."""

import dataclasses
import json

import pytest
import torch

from solomonic.models import HybridLM, load
from solomonic.models.recall_study import SMOKE, STUDIED, RecallStudy, accuracy, recall_results, run_recall_study
from solomonic.models.tasks import TaskRows

TINY = dataclasses.replace(SMOKE, steps=2, rows=8, models=("swa", "bmojo-16"), length=40, window=4, batch_size=2)


def test_runs_are_kept_and_gone_on_with(tmp_path):
    some = dataclasses.replace(TINY, models=("swa",))
    first = run_recall_study(tmp_path, some, progress=False)
    assert [r["model"] for r in first] == ["swa"]
    when = (tmp_path / "swa-2-slow-0" / "result.json").stat().st_mtime_ns
    both = run_recall_study(tmp_path, TINY, progress=False)
    assert sorted(r["model"] for r in both) == ["bmojo-16", "swa"]
    assert (tmp_path / "swa-2-slow-0" / "result.json").stat().st_mtime_ns == when
    assert not list(tmp_path.glob("*/step-*"))
    (result,) = (r for r in both if r["model"] == "bmojo-16")
    model = load(tmp_path / "bmojo-16-2-slow-0")
    rows = TINY.task(TINY.rows, 2, [0, 1 << 40])
    assert result["accuracy"] == accuracy(model, rows)
    assert result["by_budget"]["16"][0] == result["accuracy"]
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
    runs = study.runs()
    assert len(runs) == len({tuple(r.values()) for r in runs}) == 3 * 3 * (2 * len(STUDIED) - 2)
    assert [r["seed"] for r in runs] == sorted(r["seed"] for r in runs)
    with pytest.raises(ValueError, match="models: expected names among attention"):
        RecallStudy(models=("rnn",))
    with pytest.raises(ValueError, match="decays: expected"):
        RecallStudy(decays=("fast",))
