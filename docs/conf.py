"""The site: MyST pages, the lessons as they ran, and a page for every public name."""

import shutil
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent

project = "Solomonic"
author = "The Solomonic developers"
copyright = "2026, The Solomonic developers"
release = version = metadata.version("solomonic")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network
    "sphinx_copybutton",
    "sphinx_exercise",
    "sphinx_togglebutton",  # solutions that open
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
suppress_warnings = ["ref.citation"]  # a docstring may list a reference without citing it

# A name that is public no longer has no page any longer.
shutil.rmtree(HERE / "api" / "generated", ignore_errors=True)

# Lessons come as `make notebooks` ran them; one that has not run since its text changed is run here.
lessons = HERE / "lessons"
shutil.rmtree(lessons, ignore_errors=True)
lessons.mkdir()
for text in sorted((HERE.parent / "notebooks").glob("*.md")):
    run = text.parent / "executed" / f"{text.stem}.ipynb"
    has_run = run.is_file() and run.stat().st_mtime >= text.stat().st_mtime
    shutil.copy2(run if has_run else text, lessons)

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_excludepatterns = ["lessons/*.ipynb"]
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_output_stderr = "remove"

# API pages, from what each wing lists in __all__; types stand in the docstrings.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
nitpick_ignore_regex = [("py:.*", r"(collections|control|matplotlib|numpy|pathlib|torch|xarray)\..*")]

html_theme = "pydata_sphinx_theme"
html_title = "Solomonic"
html_sidebars = {page.stem: [] for page in HERE.glob("*.md")}  # pages without pages below them
html_copy_source = True  # what a lesson's download link points to
html_sourcelink_suffix = ""
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc", "download-lesson"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def skip_field_aliases(app, what, name, obj, skip, options):
    """Leave out the made-up docstrings of named tuples' fields; the class documents them as attributes."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app):
    app.connect("autodoc-skip-member", skip_field_aliases)
