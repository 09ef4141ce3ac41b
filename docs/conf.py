"""The documentation as a site: `make docs`."""

import re
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LINK = re.compile(r"\[([^\]]*)\]\(([^)#:]+)\)")

project = "fairseq_entmax"
release = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "fairseq_entmax" / "__init__.py").read_text(), re.M
).group(1)
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax from the site itself
]
exclude_patterns = ["_build"]

html_theme = "furo"  # light and dark, as the reader's system says
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_title = f"{project} {release}"

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True  # else each attribute is described twice
napoleon_custom_sections = [("Source", "notes_style")]


def copy_examples(app):
    """Pages of the examples become pages of the site, in docs/examples."""
    for page in (ROOT / "examples").glob("*/*.md"):
        text = page.read_text(encoding="utf-8").replace("](../../docs/", "](../../")
        copy = ROOT / "docs" / "examples" / page.parent.name / page.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(LINK.sub(partial(folder_link, page.parent), text), "utf-8")


def folder_link(here, link):
    """A link to a folder leads to its README; without one its words stay."""
    words, target = link.groups()
    if not (here / target).is_dir():
        return link[0]
    return f"[{words}]({target}/README.md)" if (here / target / "README.md").is_file() else words


def link_to_copies(app, name, source):
    if "/" not in name:
        source[0] = source[0].replace("](../examples/", "](examples/")


def clear_aliases(app, what, name, obj, options, lines):
    """Python's own words for the fields of a named tuple say nothing."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def setup(app):
    app.connect("autodoc-process-docstring", clear_aliases)
    app.connect("builder-inited", copy_examples)
    app.connect("source-read", link_to_copies)
