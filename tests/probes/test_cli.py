"""The command: what it prints, what it returns, and one clear line for what cannot work."""

import importlib
import json
from pathlib import Path

import pytest

from solomonic import models
from solomonic.probes import cli

from .small import small_model

report_run = importlib.import_module("solomonic.probes.report.run")


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, captured.out, captured.err


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return models.save(small_model("M2-SWA", vocab_size=256), tmp_path / "mine")


@pytest.fixture
def text(tmp_path) -> Path:
    file = tmp_path / "text.py"
    file.write_text("def f(x):\n    return x + 1\n" * 30)
    return file


def test_version_and_help(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert out.startswith("solomonic ")
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(command in out for command in ("report", "zoo", "describe", "train", "check"))


def test_report(capsys, checkpoint, text, tmp_path):
    out = tmp_path / "out"
    arguments = ["report", str(checkpoint), "--text", str(text), "--windows", "4", "--length", "32", "--quiet"]
    code, printed, err = call(capsys, *arguments, "--out", str(out))
    assert (code, err) == (0, "")
    assert printed.strip() == str(out / "index.html")
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["models"]) == ["mine"]
    assert (summary["windows"], summary["length"], summary["seed"]) == (4, 32, 0)


def test_report_takes_the_zoo_where_nothing_is_named(capsys, checkpoint, tmp_path, monkeypatch):
    seen = {}

    def write(given, out, **options):
        seen.update(given=given, out=out, **options)
        return out / "index.html"

    # The package's name `report` is the function, so its module is asked for by name.
    monkeypatch.setattr(importlib.import_module("solomonic.probes.report"), "report", write)
    monkeypatch.setattr(models, "zoo", lambda task: {"a": checkpoint})
    code, _, _ = call(capsys, "report", "--out-dir", str(tmp_path / "out"), "--seed", "3")
    assert code == 0
    assert seen["given"] == {"a": checkpoint}
    assert (seen["rng"], seen["progress"], seen["out"]) == (3, True, tmp_path / "out")
    monkeypatch.setattr(models, "zoo", lambda task: {})
    code, _, err = call(capsys, "report")
    assert code == 2
    assert "name a checkpoint folder" in err


def test_checkpoints_with_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "c"]
    for path in paths:
        path.mkdir(parents=True)
    assert list(cli._unique([str(p) for p in paths])) == ["model", "b/model", "c"]
    assert list(cli._unique([str(paths[0])] * 2)) == ["model"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "no-such-folder"], "no-such-folder: no such folder"),
        (["describe", "no-such-folder"], "no-such-folder: no such folder"),
        (["check", "no-such-folder"], "no-such-folder: no such folder"),
        (["report", "CHECKPOINT", "--text", "no-such-file"], "no-such-file is no file"),
        (["report", "CHECKPOINT", "--windows", "0", "--text", "TEXT"], "windows: expected"),
        (["report", "CHECKPOINT", "--text", "TEXT", "--length", "4000"], "hold 0 windows"),
        (["report", "CHECKPOINT", "--text", "TEXT", "--length", "32", "--windows", "2", "--out", "TEXT"], "is a file"),
        (
            ["report", "CHECKPOINT", "--text", "TEXT", "--length", "32", "--windows", "2", "--out", "TEXT/x"],
            "cannot write",
        ),
        (["train", "--out", "x"], "got neither"),
        (["train", "fading", "--config", "c.json", "--out", "x"], "got both"),
        (["train", "--config", "c.json", "--out", "x"], "needs --steps"),
        (["train", "nobody", "--steps", "2", "--out", "x"], "name: expected one of"),
        (["train", "--config", "no-such.json", "--steps", "2", "--out", "x"], "no-such.json: no such file"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(capsys, checkpoint, text, arguments, said):
    filled = [a.replace("CHECKPOINT", str(checkpoint)).replace("TEXT", str(text)) for a in arguments]
    code, out, err = call(capsys, *filled)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("solomonic: ")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["frobnicate"], ["report", "--windows", "many"], ["describe"]])
def test_what_is_no_call_is_told(capsys, arguments):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in err


def test_stopping_a_report_says_what_stays(capsys, checkpoint, text, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_run, "measure", stop)
    out = tmp_path / "out"
    arguments = ["report", str(checkpoint), "--text", str(text), "--windows", "2", "--length", "32", "--quiet"]
    code, _, err = call(capsys, *arguments, "--out", str(out))
    assert code == 130
    assert "as it is" not in err
    assert "nothing was written" in err
    assert not out.exists()


def test_a_full_disk_is_told_in_one_line(capsys, checkpoint, text, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_run, "render", full)
    arguments = ["report", str(checkpoint), "--text", str(text), "--windows", "2", "--length", "32", "--quiet"]
    code, _, err = call(capsys, *arguments, "--out", str(tmp_path / "out"))
    assert code == 2
    assert "No space left on device" in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "text.py"]


def test_describe(capsys, checkpoint):
    code, out, _ = call(capsys, "describe", str(checkpoint), "--tokens", "100")
    assert code == 0
    assert "after 100 tokens" in out
    assert "SWA" in out


def test_check_passes_and_fails(capsys, checkpoint, monkeypatch):
    code, out, _ = call(capsys, "check", str(checkpoint), "--quiet")
    assert code == 0
    assert "holds" in out
    forgetful = models.load(checkpoint)
    forward = forgetful.forward

    def forget(ids, memory=None, *, record=None):
        return forward(ids, None, record=record)

    forgetful.forward = forget
    monkeypatch.setattr(models, "load", lambda path: forgetful)
    code, out, _ = call(capsys, "check", str(checkpoint), "--quiet")
    assert code == 1
    assert "FAILS" in out


def test_zoo_lists_what_ships(capsys, checkpoint, monkeypatch):
    (checkpoint / "card.json").write_text('{"tokens": 2e6, "minutes": 3, "validation": {"bits_per_byte": 1.5}}')
    other = models.save(small_model("*"), checkpoint.parent / "other")
    monkeypatch.setattr(models, "zoo", lambda: {"mine": checkpoint, "other": other})
    code, out, _ = call(capsys, "zoo")
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split()[:3] == ["name", "pattern", "parameters"]
    assert "1.500 bits a byte" in rows[0]
    assert "2 M bytes, 3 min" in rows[0]
    assert rows[1].startswith("other")
    (checkpoint / "card.json").write_text('{"accuracy": {"all": {"accuracy": 0.987}}}')
    assert "99 % recalled" in call(capsys, "zoo")[1]


def test_the_recall_pair_is_trained_by_its_recipe_alone(capsys, tmp_path):
    code, _, err = call(capsys, "train", "recall-bmojo", "--steps", "3", "--out", str(tmp_path))
    assert code == cli.WRONG
    assert "recall-bmojo is trained on recall by its own recipe alone" in err


def test_train_by_a_config_writes_a_card_and_goes_on_where_it_was(capsys, checkpoint, tmp_path, monkeypatch):
    root = tmp_path / "source"
    root.mkdir()
    for i in range(24):
        (root / f"m{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 60)
    corpus = models.stdlib_corpus
    monkeypatch.setattr(models, "stdlib_corpus", lambda: corpus(root=root, woven=0.1))
    out = tmp_path / "run"
    arguments = ["train", "--config", str(checkpoint / "config.json"), "--steps", "4", "--context", "64",
                 "--save-every", "2", "--seed", "5", "--quiet", "--out", str(out)]  # fmt: skip
    code, printed, _ = call(capsys, *arguments)
    assert code == 0
    assert printed.strip() == str(out)
    card = json.loads((out / "card.json").read_text())
    assert (card["name"], card["seed"], card["tokens"], card["pattern"]) == ("run", 5, 4 * 4 * 64, "M2-SWA")
    assert len(card["curve"]) == 2
    assert models.load(out).config.pattern == ("M2", "SWA")
    assert sorted(p.name for p in out.glob("step-*")) == ["step-00000004"]
    code, _, _ = call(capsys, *arguments)  # finished already: nothing to do
    assert code == 0
    assert call(capsys, *arguments[:-1], str(tmp_path / "all"), "--keep-all")[0] == 0
    assert sorted(p.name for p in (tmp_path / "all").glob("step-*")) == ["step-00000002", "step-00000004"]


def test_stopping_a_training_run_says_how_to_go_on(capsys, checkpoint, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "train_zoo", stop)
    code, _, err = call(capsys, "train", "fading", "--out", str(tmp_path / "run"))
    assert code == 130
    assert "the same command goes on from there" in err


def test_recall_goes_on_and_writes_table_and_figures(capsys, tmp_path, monkeypatch):
    import dataclasses

    from solomonic.models import recall_study

    tiny = dataclasses.replace(recall_study.SMOKE, steps=1, rows=4, batch_size=1, length=40, window=4)
    monkeypatch.setattr(recall_study, "SMOKE", tiny)
    out = tmp_path / "study"
    assert call(capsys, "recall", "--smoke", "--out", str(out), "--models", "swa", "-q")[0] == 0
    code, said, _ = call(capsys, "recall", "--smoke", "--out", str(out), "--models", "swa", "bmojo-4", "-q")
    assert code == 0
    assert said.count("| 2 |") == 2
    assert (out / "table.md").read_text() == said
    assert (out / "by-stored-2.png").stat().st_size > 1000
    code, _, told = call(capsys, "recall", "--smoke", "--out", str(out), "--models", "rnn", "-q")
    assert code == cli.WRONG
    assert "expected names among attention" in told
    code, _, told = call(capsys, "recall", "--smoke", "--out", str(tmp_path / "new"), "--minutes", "-1", "-q")
    assert code == cli.STOPPED
    assert "no run is done yet" in told
