"""The page in a browser: it fits its width, in light and dark, and loads nothing."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from solomonic.probes import report

from .small import small_model, tokens

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")

#: What the page tells of itself from inside a frame of a given width.
ASK = """
<script>
addEventListener("load", () => {
  const seen = frames[0].document, root = seen.documentElement, style = frames[0].getComputedStyle(seen.body);
  const box = (element) => element.getBoundingClientRect();
  const wide = [...seen.querySelectorAll("main *")].filter(e => !e.closest(".scroll") && !e.closest("svg")
      && box(e).right > root.clientWidth + 1).map(e => e.tagName + "." + e.className);
  const shown = [...seen.querySelectorAll("svg")].filter(e => box(e).width > 0);
  const text = shown[0].querySelector("text");
  document.body.textContent = JSON.stringify({
    scroll: root.scrollWidth, client: root.clientWidth, wide: wide.slice(0, 5),
    figures: shown.length, smallest: Math.min(...shown.map(e => box(e).width)),
    paper: style.backgroundColor, ink: style.color, figure: frames[0].getComputedStyle(text).fill,
    loaded: frames[0].performance.getEntriesByType("resource").map(e => e.name),
    scrollers: [...seen.querySelectorAll(".scroll")].every(e => e.tabIndex === 0),
  });
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    long = "a-name-without-a-break-" * 6
    models = {
        long: small_model("*-*"),
        "deadbeat": small_model("SWA-SWA", swa_window=4),
        "bmojo-f": small_model("BMF-M2"),
    }
    folder = tmp_path_factory.mktemp("page") / "out"
    return report(models, folder, text=tokens(6, 40), progress=False).read_text(encoding="utf-8")


def look(page: str, folder: Path, width: int, scheme: str) -> dict:
    """What the page tells of itself at a width, in light or dark."""
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(page)}"></iframe>'
    file = folder / "frame.html"
    file.write_text(f"<!doctype html><meta charset='utf-8'><body>{frame}{ASK}</body>", encoding="utf-8")
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--window-size={width + 40},1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        file.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = re.search(r"<body>(\{.*\})</body>", dom, re.DOTALL)
    assert found is not None, dom[-500:]
    return json.loads(html.unescape(found[1]))


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2)."""
    parts = [float(v) / 255 for v in re.findall(r"[\d.]+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_page_fits_and_can_be_read(page, tmp_path, width, scheme):
    seen = look(page, tmp_path, width, scheme)
    assert seen["client"] == width
    assert seen["scroll"] <= seen["client"], seen["wide"]
    assert seen["wide"] == []
    assert seen["loaded"] == []
    assert seen["figures"] > 10
    assert seen["smallest"] > 200
    assert seen["scrollers"]
    paper, ink, figure = (luminance(seen[key]) for key in ("paper", "ink", "figure"))
    assert (paper < 0.05) == (scheme == "dark")
    assert ink == pytest.approx(figure, abs=0.01), "the figures do not follow the page's colours"
    light, dark = max(paper, ink), min(paper, ink)
    assert (light + 0.05) / (dark + 0.05) > 7
