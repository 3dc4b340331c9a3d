"""The recall study as a table and as plots."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from solomonic.probes import plots, recall_markdown, recall_table
from solomonic.probes.recall_figures import write_recall_study


def run(model, seed, accuracy, *, decay="slow", choice=0.5, pairs=4, budget=None):
    return {
        "model": model,
        "pairs": pairs,
        "decay": decay,
        "seed": seed,
        "accuracy": accuracy,
        "choice": choice,
        "by_lag": {"to 16": accuracy, "over 16": None if seed == 2 else accuracy / 2},
        "by_budget": budget or {},
        "by_budget_random": {m: [0.2, 0.1] for m in budget or {}},
        "memory_nbytes": 2048,
    }


RESULTS = [
    *(run("swa", seed, a) for seed, a in enumerate((0.2, 0.3, 0.7))),
    *(run("bmojo-16", seed, 0.9, choice=0.4, budget={"0": [0.1, 0.1], "16": [0.9, 0.8]}) for seed in range(3)),
    *(run("bmojo-16", seed, 0.6, decay="default", choice=0.6, budget={"0": [0.2, 0.1], "16": [0.6, 0.5]})
      for seed in range(3)),
    run("swa", 0, 0.1, pairs=8),
]  # fmt: skip


def test_means_and_intervals():
    table = recall_table(RESULTS)
    mean, low, high = table.accuracy.sel(model="swa", pairs=4).values
    interval = ttest_1samp([0.2, 0.3, 0.7], 0).confidence_interval(0.95)
    assert mean == pytest.approx(0.4)
    assert (low, high) == (0.0, pytest.approx(min(1.0, interval.high)))
    assert np.isnan(table.accuracy.sel(model="swa", pairs=8, bound="low"))
    assert table.seeds.sel(model="swa").values.tolist() == [3, 1]
    assert table.by_lag.sel(model="swa", pairs=4, lag="over 16", bound="mean") == pytest.approx(0.125)
    assert table.accuracy.attrs["units"] == "share of questions"


def test_the_decay_is_chosen_on_other_rows():
    table = recall_table(RESULTS)
    assert table.decay.sel(model="bmojo-16", pairs=4).item() == "default"  # though "slow" has more in the table's rows
    assert table.accuracy.sel(model="bmojo-16", pairs=4, bound="mean") == pytest.approx(0.6)
    assert table.far_by_budget.sel(model="bmojo-16", pairs=4, bound="mean").values.tolist() == pytest.approx([0.1, 0.5])
    assert table.far_by_random.sel(model="bmojo-16", pairs=4, bound="mean").values.tolist() == pytest.approx([0.1, 0.1])
    assert np.isnan(table.accuracy.sel(model="bmojo-16", pairs=8)).all()
    text = recall_markdown(table).splitlines()
    assert len(text) == 2 + 3
    assert "| 4 | bmojo-16 | default | 3 | 2,048 | 0.60 (0.60 to 0.60) |" in text[3]


def test_plots_and_files(tmp_path):
    table = recall_table(RESULTS)
    for by in ("lag", "pairs", "stored"):
        ax = plots.recall_study(table, by=by, pairs=4)
        drawn = {text.get_text() for text in ax.texts}
        assert drawn == ({"bmojo-16"} if by == "stored" else {"swa", "bmojo-16"})
        assert ax.get_xlabel()
        assert "share of questions" in ax.get_ylabel()
    curve = plots.recall_study(table, by="lag", pairs=4).lines[0]
    np.testing.assert_allclose(curve.get_ydata(), [0.4, 0.125])
    assert len(plots.recall_study(table, by="stored", pairs=4).lines) == 2  # one of them dotted: chosen at random
    write_recall_study(RESULTS, tmp_path)
    drawn = {"by-lag-4.png", "by-lag-8.png", "by-pairs.png", "by-stored-4.png"}  # with 8 pairs nothing is stored
    assert {p.name for p in tmp_path.iterdir()} == {"table.md", *drawn}


def test_the_documented_table_is_that_of_the_documented_runs():
    docs = Path(__file__).resolve().parents[2] / "docs"
    results = json.loads((docs / "data" / "recall.json").read_text(encoding="utf-8"))
    table = recall_table(results)
    assert recall_markdown(table) in (docs / "howto" / "who-recalls-what.md").read_text(encoding="utf-8")
    assert table.pairs.values.tolist() == [2, 4, 8]
    assert table.sizes["model"] == 9
    assert (table.seeds >= 3).all()
    easy, hard = table.sel(pairs=4), table.sel(pairs=8)
    mean, low, high = (easy.accuracy.sel(bound=b).to_series() for b in ("mean", "low", "high"))
    assert low["bmojo-16"] > high["bmojo-f"]  # the claims that the page says hold
    assert mean["bmojo-16"] > max(mean["bmojo-4"], mean["bmojo-random-16"])
    assert mean["bmojo-f"] < mean["hybrid"]  # and one that does not
    gap = [e.accuracy.sel(model="bmojo-16") - e.accuracy.sel(model="bmojo-f") for e in (easy, hard)]
    assert gap[1].sel(bound="mean") > gap[0].sel(bound="mean")
    far = easy.far_by_budget.sel(model="bmojo-16", bound="mean")
    assert (far.diff("stored") > -0.005).all()
    assert (far > easy.far_by_random.sel(model="bmojo-16", bound="mean"))[1:-1].all()


def test_refused():
    with pytest.raises(ValueError, match="expected at least one run"):
        recall_table([])
    table = recall_table(RESULTS)
    with pytest.raises(ValueError, match="by: expected one of lag, pairs, stored"):
        plots.recall_study(table, by="seed")
    with pytest.raises(ValueError, match=r"pairs: expected one of \[4, 8\], got 5"):
        plots.recall_study(table, pairs=5)
    with pytest.raises(ValueError, match="none stores tokens"):
        plots.recall_study(table, by="stored", pairs=8)
