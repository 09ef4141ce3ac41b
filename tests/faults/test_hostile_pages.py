"""Words of a dictionary that are markup stay words in every page and picture."""

import pytest
import torch
from fairseq.data import Dictionary, indexed_dataset

from fairseq_entmax.__main__ import main
from tests.builders import N_WORDS

from .test_hostile_files import state  # noqa: F401  a fixture

pytest.importorskip("matplotlib", reason="needs the extra [plot]")
pytest.importorskip("jinja2", reason="needs the extra [plot]")

MARKUP = [
    "<script>alert(1)</script>",
    "<img/src=x/onerror=alert(1)>",
    "</title></svg></style><script>alert(2)</script>",
    "\"'><svg/onload=alert(3)>",
    "javascript:alert(4)",
    "{{7*7}}",
    "{%raw%}",
    "&lt;b&gt;<b>",
    "$\\frac{1$",
    "]]><!--",
]


@pytest.fixture
def model(tmp_path, state):  # noqa: F811
    """Data and a checkpoint whose words are MARKUP."""
    words = Dictionary()
    for i in range(N_WORDS):
        words.add_symbol(MARKUP[i] if i < len(MARKUP) else f"w{i}")
    for language in ("a", "b"):
        words.save(str(tmp_path / f"dict.{language}.txt"))
        name = str(tmp_path / f"test.a-b.{language}")
        builder = indexed_dataset.make_builder(f"{name}.bin", "mmap", vocab_size=len(words))
        for start in (4, 8):
            builder.add_item(torch.tensor([*range(start, start + 6), words.eos()]))
        builder.finalize(f"{name}.idx")
    torch.save(state, str(tmp_path / "model.pt"))
    return [str(tmp_path), "--path", str(tmp_path / "model.pt"), "--cpu", "--languages", "a", "b"]


def assert_harmless(text):
    for part in ("<script", "<img", "onerror=alert(1)>", "<svg/onload", "<b>", "<!--"):
        assert part not in text


def test_report(model, tmp_path):
    out = tmp_path / "report.html"
    main(
        ["report", *model, "--sentences", "2", "--examples", "2", "--beam", "2", "--out", str(out)]
    )
    page = out.read_text(encoding="utf-8")
    assert_harmless(page)
    assert "&lt;script&gt;alert(1)" in page and "{{7*7}}" in page


def test_explorer(model):
    pytest.importorskip("flask", reason="needs the extra [explore]")
    from fairseq_entmax.analysis.explorer.app import Explorer, make_app
    from fairseq_entmax.analysis.opened import Opened

    data, _, path, *_ = model
    explorer = Explorer([Opened(data, path, ("a", "b"), cpu=True)], 200, examples=MARKUP[:3])
    client = make_app(explorer, 8766).test_client()
    for query in ({}, {"q": " ".join(MARKUP[:4]), "beam": 2}):
        asked = client.get("/", query_string=query, headers={"Host": "127.0.0.1:8766"})
        page = asked.get_data(as_text=True)
        assert_harmless(page.replace('<script src="/explore.js" defer></script>', ""))
        assert asked.status_code == 200 and "&lt;script&gt;alert(1)" in page
