"""The site of the documentation names every page."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INDEX = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
PAGES = [path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index"]
EXAMPLES = [
    path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "examples").glob("*/*.md")
]


@pytest.mark.parametrize("page", PAGES + EXAMPLES)
def test_the_index_names_each_page(page):
    assert INDEX.count(page) == 1
