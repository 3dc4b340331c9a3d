"""The report: whole or not at all, escaped, complete in itself, and its numbers are those of its Datasets."""

import errno
import html
import importlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from solomonic.models import HybridConfig, HybridLM, save
from solomonic.probes import report
from solomonic.probes.report import error_readings, readings, say, svg
from solomonic.probes.report.svg import inline, standalone

from .small import BLANK, small_model, tokens

run = importlib.import_module("solomonic.probes.report.run")
subjects = importlib.import_module("solomonic.probes.report.subjects")

HOSTILE = "<script>alert('x')</script> \"q\" & $\\frac{1}$ été 模型 \x1b #1d5fa8"
SHOWN = HOSTILE.replace("\x1b", "\ufffd")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page: names with attributes, their text, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, *tags: str) -> str:
        return " ".join(text for tag, text in self.texts if not tags or tag in tags)


@pytest.fixture(scope="module")
def models() -> dict[str, HybridLM]:
    return {
        HOSTILE: small_model("*-*"),
        "deadbeat": small_model("SWA-SWA", swa_window=4),
        "fading": small_model("M2-M2"),
        "bmojo-f": small_model("BMF-BMF", bmojo_window=4),
    }


@pytest.fixture(scope="module")
def out(models, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    page = report(models, folder, text=tokens(8, 40), jobs=1, progress=False)
    assert page == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def page(out) -> Page:
    return Page((out / "index.html").read_text(encoding="utf-8"))


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------- the page
def test_the_page_is_well_formed_and_complete_in_itself(out, page):
    assert page.faults == []
    assert page.open == []
    text = (out / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w", text), "the page refers to something outside itself"
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("img")
    links = [a["href"] for a in page.all("a")]
    assert links
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids)), "an id is there twice"
    assert {link.removeprefix("#") for link in links if link} <= set(ids)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {a or b for a, b in used} <= set(ids), "a figure refers to an id that is not there"


def test_names_are_escaped_and_shown_as_they_are(out, page):
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert SHOWN in page.text("h2")
    assert SHOWN in page.text("th", "strong")
    assert SHOWN in page.text("text"), "the figure shows another name"
    assert "\x1b" not in text
    assert any(SHOWN in (attrs.get("aria-label") or "") for attrs in page.all("svg"))


def test_every_figure_has_an_alternative_text_and_a_caption(page):
    drawn = page.all("svg")
    assert len(drawn) > 15
    for attrs in drawn:
        assert attrs["role"] == "img"
        assert len(attrs["aria-label"] or "") > 30
    assert len(page.all("figcaption")) == len(page.all("figure"))


def test_headings_tables_and_language(page):
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("title")
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1, "a level of headings is left out"
    assert len(page.all("caption")) == len(page.all("table"))
    assert {attrs.get("scope") for attrs in page.all("th")} == {"col", "row"}
    assert page.all("main")
    assert page.all("nav")[0]["aria-label"]
    style = page.text("style")
    assert "prefers-color-scheme: dark" in style
    assert ":focus-visible" in style


def test_figures_take_their_colours_from_the_page(page):
    for name, attrs in page.elements:
        if name in {"path", "use", "text"} and (style := attrs.get("style")):
            without = re.sub(r"var\(--\w+, #\w{6}\)", "", style)
            assert "#" not in re.sub(r"url\(#[^)]*\)", "", without), f"a fixed colour: {style}"


# ---------------------------------------------------------------- the numbers
def test_the_data_are_beside_the_page_and_its_numbers_are_theirs(out, page, models):
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert files(out) == sorted({*summary["files"], "summary.json"})
    assert list(summary["models"]) == [SHOWN, *list(models)[1:]]
    said = page.text("li", "p")
    for name, numbers in summary["models"].items():
        with xr.open_datatree(out / numbers["file"], engine="h5netcdf") as tree:
            curve = tree["fading"].to_dataset().load()
            assert {"bend", "split_law", "structure_0", "layer_influence_1"} <= set(tree.children)
        np.testing.assert_array_equal(curve.kl_median, numbers["kl_median"])
        assert int(curve.attrs["cut"]) == numbers["cut"]
        assert numbers["checkpoint"] == curve.attrs["checkpoint"]
        last = int(curve.lag[-1])
        if numbers["cut"] < 0:
            assert say.small(float(curve.kl_median.sel(lag=last)), "bits") in said, name
    cut = summary["models"]["deadbeat"]
    assert (cut["cut"], cut["last_influence"], cut["reach"]) == (7, 6, 6)
    assert "exactly 0.0 from lag 7 = 2 · (4 − 1) + 1 on" in said
    assert say.small(cut["kl_mean"][cut["lag"].index(6)], "bits") in said
    assert np.shape(summary["models"]["bmojo-f"]["fading_mass"]) == (2, 4)
    assert np.shape(summary["models"]["fading"]["half_life"]) == (2, 4)


def test_all_models_are_measured_on_the_same_windows_and_lags(out):
    trees = [xr.open_datatree(file, engine="h5netcdf") for file in sorted(out.glob("*.nc"))]
    lags = [tree["fading"]["lag"].to_numpy() for tree in trees]
    read = {json.loads(tree["fading"].attrs["arguments"])["ids"]["sha256"] for tree in trees}
    for tree in trees:
        tree.close()
    assert len(trees) == 4
    assert len(read) == 1
    for each in lags:
        np.testing.assert_array_equal(each, lags[0])


def test_the_same_call_gives_the_same_page(tmp_path):
    model = small_model("M2-SWA")
    pages = [report(model, tmp_path / name, name="m", text=tokens(4, 24), progress=False) for name in ("old", "new")]
    old, new = (page.read_text(encoding="utf-8") for page in pages)
    seconds = re.compile(r"<td>\d+</td></tr>")  # the last column of the checkpoints: how long it took
    assert seconds.sub("", old) == seconds.sub("", new)


def test_the_picture_stands_alone(out):
    assert (out / "fading.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "fading.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert "prefers-color-scheme: dark" in text
    assert set(re.findall(r"https?://[^\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert html.escape(SHOWN, quote=False) in text


def test_every_probe_of_the_memories_has_its_section_and_figures(out, page):
    """And a model that lacks the memory says so."""
    titles = page.text("h3")
    for title in (
        "How much of its memory is in use", "What it tells of an input that long ago", "The law by which it forgets",
        "Through which memory it remembers", "What can be seen of its state, and moved",
        "What it holds and does not say", "Which memories can be told apart", "Where it can be steered",
        "How small a state would do", "What selecting adds", "Its heads as realizations", "What was not measured",
        "Prediction errors", "What an intervention does", "Information in the weights",
    ):  # fmt: skip
        assert title in titles, title
    groups = {
        "effective_state", "receptive_field", "memory_curve", "decay_law", "fading_by_memory", "observability",
        "controllability", "unsaid", "distinguishability", "empirical_gramians", "steer", "compression", "sensitivity",
        "lyapunov", "structures", "innovations", "causal_trace", "fisher_information",
    }  # fmt: skip
    with xr.open_datatree(out / "bmojo-f.nc", engine="h5netcdf") as tree:
        assert groups <= set(tree.children)
    assert "It has no state space state" in page.text("p")


def test_prediction_errors_are_told_in_numbers(out, page):
    said = page.text("p")
    for name, each in json.loads((out / "summary.json").read_text(encoding="utf-8"))["models"].items():
        with xr.open_datatree(out / each["file"], engine="h5netcdf") as tree:
            found = tree["innovations"].to_dataset().load()
        assert each["errors"]["p_value"] == float(found.p_value.sel(test="redraw"))
        assert each["errors"]["ece"] == float(found.ece)
        first, fair = float(found.autocorrelation[0]), float(found.ece_calibrated)
        assert f"has the correlation {error_readings.signed(first)} with" in said, name
        assert f"is {say.small(fair)}, so this is" in said, name


def test_one_short_window_has_prediction_errors_without_intervals(tmp_path):
    written = report(small_model("M2"), tmp_path, text=tokens(1, 8), memories=False, progress=False)
    said = Page(written.read_text(encoding="utf-8")).text("p")
    assert "Over one window the error of a prediction" in said
    assert "nan" not in said


def test_a_model_that_is_always_sure_has_no_section_of_errors(tmp_path):
    model = small_model("M2")
    model.lm_head.weight.mul_(1e6)
    written = report(model, tmp_path, text=tokens(2, 12), memories=False, progress=False)
    assert "Prediction errors" not in Page(written.read_text(encoding="utf-8")).text("h3")


def test_what_is_stored_is_tested_for_models_that_store_tokens(tmp_path):
    model = small_model("BMO-M2", bmojo_window=4, eidetic_tokens=4)
    written = report(model, tmp_path, name="stores", text=tokens(2, 24), progress=False)
    page = Page(written.read_text(encoding="utf-8"))
    with xr.open_datatree(tmp_path / "stores.nc", engine="h5netcdf") as tree:
        found = tree["eviction"].to_dataset().load()
    assert (found.sizes["layer"], found.attrs["cut"], found.sizes["time"]) == (1, 12, 4)
    assert "What is stored" in page.text("h3")
    loss = found.set_loss.mean("prompt").sel(layer=0)
    assert f"it is {float(loss.sel(choice='kept')):.3f} bits with what is kept" in page.text("p")


def test_the_card_holds_each_number_with_its_interval(out, page):
    told = json.loads((out / "memory-card.json").read_text(encoding="utf-8"))
    assert told["format"] == "solomonic-memory-card"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))["models"]
    assert list(told["models"]) == list(summary)
    for name, each in told["models"].items():
        assert each["checkpoint"] == summary[name]["checkpoint"]
        assert each["memory"] == summary[name]["card"]
        for entry in each["memory"].values():
            assert entry["unit"]
            assert entry["meaning"]
            if entry["interval"] is not None and None not in (*entry["interval"], entry["value"]):
                low, high = entry["interval"]
                assert low <= entry["value"] + 1e-12
                assert entry["value"] <= high + 1e-12
    memory = told["models"]["bmojo-f"]["memory"]
    assert set(memory) == {
        "half_life", "eidetic_span", "eidetic_reach", "effective_state", "effective_registers", "observable_share",
    }  # fmt: skip
    with xr.open_datatree(out / "bmojo-f.nc", engine="h5netcdf") as tree:
        half = float(tree["retention"]["half_life_median"])
        share = tree["observability"]["seen_share"].mean("layer").to_numpy()
    assert memory["half_life"]["value"] == pytest.approx(half)
    assert memory["observable_share"]["value"] == pytest.approx(share.mean())
    assert (memory["eidetic_span"]["value"], memory["eidetic_span"]["exact"]) == (4, True)
    assert memory["effective_state"]["of"] == 8
    assert told["models"]["deadbeat"]["memory"]["eidetic_reach"]["value"] == 6
    assert told["models"][SHOWN]["memory"]["eidetic_span"]["value"] is None
    assert "half_life" not in told["models"]["deadbeat"]["memory"]
    assert f"{memory['effective_state']['value']:.1f} (" in page.text("td")


# ---------------------------------------------------------------- one model
def test_one_model_from_a_folder_with_a_hostile_name_and_a_broken_card(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)> & co"
    config = HybridConfig(pattern="M2-SWA", vocab_size=256, hidden_size=16, intermediate_size=16, num_attention_heads=2,
                          num_key_value_heads=1, head_dim=8, swa_window=4)  # fmt: skip
    save(HybridLM(config, rng=0), folder)
    (folder / "card.json").write_text('{"minutes": "<b>", "validation": {"recall": 3}, "curve": [[1]], "seed": "<i>"}')
    text = "def f(x):\n    return x + 1\n" * 40
    written = report(folder, tmp_path / "out", text=text, windows=6, length=40, memories=False, progress=False)
    page = Page(written.read_text(encoding="utf-8"))
    assert page.faults == []
    assert page.all("img") == page.all("b") == page.all("i") == []
    assert folder.name in page.text("h1")
    assert files(tmp_path / "out") == ["fading.png", "fading.svg", "img-src-x-onerror-alert-1-co.nc", "index.html",
                                       "memory-card.json", "summary.json"]  # fmt: skip


def test_a_list_of_models_gets_names_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(svg, "_render", lambda *given: BLANK)
    options = {"text": tokens(3, 24), "memories": False, "jobs": 1, "progress": False}
    written = report([small_model("M2"), small_model("M2", rng=1)], tmp_path, **options)
    assert list(json.loads((written.parent / "summary.json").read_text())["models"]) == ["M2", "M2 2"]
    named = report(small_model("M2"), tmp_path, name="mine", **options)
    assert list(json.loads((named.parent / "summary.json").read_text())["models"]) == ["mine"]


# ---------------------------------------------------------------- bad input, bad luck
@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        (3, {}, TypeError, "models: expected a HybridLM"),
        ([], {}, ValueError, "at least one"),
        ({"a": 3}, {}, TypeError, r"models\['a'\]"),
        ("no-such-model", {}, FileNotFoundError, "no-such-model"),
        (["M2", "M2"], {"name": "x"}, ValueError, "name: is for one model"),
        (["M2"], {}, ValueError, "needs token ids"),
        (["M2"], {"text": "a text"}, ValueError, "needs token ids"),
        (["M2"], {"text": torch.zeros(2, 4, dtype=torch.long)}, ValueError, "at least 8 tokens"),
        (["M2"], {"text": torch.full((2, 9), 64)}, ValueError, "from 0 to 63"),
        (["M2"], {"text": tokens(2, 9), "windows": 0}, ValueError, "windows: expected"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(tmp_path, models, options, error, message):
    if isinstance(models, list):
        models = [small_model(pattern) for pattern in models]
    with pytest.raises(error, match=message):
        report(models, tmp_path / "out", progress=False, **options)
    assert files(tmp_path) == []


def test_vocabularies_must_agree(tmp_path):
    given = {"a": small_model("M2"), "b": small_model("M2", vocab_size=65)}
    with pytest.raises(ValueError, match="one vocabulary"):
        report(given, tmp_path / "out", text=tokens(2, 9), progress=False)


def test_a_text_that_is_too_short_says_how_long_it_must_be(tmp_path):
    model = small_model("M2", vocab_size=256)
    with pytest.raises(ValueError, match="100 bytes hold 3 windows of 32 tokens"):
        report(model, tmp_path / "out", text="x" * 100, windows=4, length=32, progress=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("where", ["measure", "render", "file_names"])
def test_an_interruption_leaves_the_earlier_report(tmp_path, monkeypatch, error, where):
    model = small_model("M2")
    out = tmp_path / "out"
    report(model, out, text=tokens(3, 24), memories=False, progress=False)
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(run, where, stop)
    with pytest.raises(type(error)) as caught:
        report(model, out, text=tokens(3, 24), memories=False, rng=1, progress=False)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert files(tmp_path) == ["out"]
    if isinstance(error, OSError):
        assert str(out) in str(caught.value)
        assert "No space left" in str(caught.value)


def test_a_folder_that_is_refused_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "measure", lambda *args, **kwargs: pytest.fail("measured before the folder was looked at"))
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="is no report of ours"):
        report(small_model("M2"), tmp_path, text=tokens(3, 24), progress=False)
    with pytest.raises(ValueError, match="expected a folder"):
        report(small_model("M2"), tmp_path / "mine.txt", text=tokens(3, 24), progress=False)
    with pytest.raises(OSError, match="cannot write"):
        report(small_model("M2"), tmp_path / "mine.txt" / "out", text=tokens(3, 24), progress=False)
    assert files(tmp_path) == ["mine.txt"]


# ---------------------------------------------------------------- parts
def test_windows_do_not_overlap_and_depend_on_the_seed_alone():
    rng = np.random.default_rng
    starts = subjects._starts(1000, 9, 100, rng(0), "text")
    assert np.diff(starts).min() >= 100
    assert starts.max() + 100 <= 1000
    np.testing.assert_array_equal(starts, subjects._starts(1000, 9, 100, rng(0), "text"))


def test_svg_changes_tags_and_leaves_text_alone():
    svg = '<?xml?><svg viewBox="0 0 72 72"><g id="a"><text style="fill: #1d5fa8">#1d5fa8 id="a"</text></g></svg>'
    out = inline(svg, key="k", alt='<"alt">')
    assert '>#1d5fa8 id="a"</text>' in out
    assert 'id="k-a"' in out
    assert "fill: var(--blue, #1d5fa8)" in out
    assert 'aria-label="&lt;&#34;alt&#34;&gt;"' in out
    assert 'width="96"' in out


def test_a_standalone_picture_is_xml():
    import xml.etree.ElementTree as ET

    root = ET.fromstring(standalone(lambda ax: ax.set_title("<&>", parse_math=False), (2, 2), alt="a & b").encode())
    assert root.attrib["aria-label"] == "a & b"


def test_readings_of_a_curve_that_ends_early_or_not_at_all():
    assert readings.reach_formula(HybridConfig(pattern="SWA-SWA-SWA-SWA", swa_window=64)) == "4 · (64 − 1) + 1"
    assert readings.reach_formula(HybridConfig(pattern="SWA-M2", swa_window=64)) == ""
    assert readings.what_it_is(HybridConfig(pattern="M2-*")).startswith("Two layers: 1 of Mamba2")


def test_every_kind_of_layer_has_its_matrix_and_is_told(tmp_path):
    model = small_model("M2-GKA-BMO-GDN", bmojo_window=4)
    page = report(model, tmp_path / "out", name="mixed", text=tokens(2, 20), progress=False)
    text = Page(page.read_text("utf-8")).text()
    for kind in ("Gated KalmaNet", "B'MOJO: one softmax over the last 4 inputs", "gated delta rule"):
        assert kind in text
    assert "What is stored: not measured: windows of 20 tokens are too short" in " ".join(text.split())
    assert "reduced matrix" not in text
    for layer in ("0, M2", "1, GKA", "2, BMO", "3, GDN"):
        assert layer in text
        assert f"{layer}, head 3" in text
    with xr.open_datatree(tmp_path / "out" / "mixed.nc", engine="h5netcdf") as tree:
        left = tree["structure_3"]["along_key"].isel(at=1).to_numpy()
        held = int(tree["structure_2"].attrs["order"])
    assert f"there {left.min():.3f} to {left.max():.3f} is left at the median gates" in text
    assert f"{held:,}" in text
    assert "contents and the Gram matrix of their keys, each times the same decay" in text
    assert "What is stored stays where it is between refreshes, an eigenvalue 1 for each slot" in text
    card = json.loads((tmp_path / "out" / "memory-card.json").read_text("utf-8"))["models"]["mixed"]["memory"]
    assert card["eidetic_span"]["value"] == 4
    assert card["eidetic_reach"]["value"] is None
