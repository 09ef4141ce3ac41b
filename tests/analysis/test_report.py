"""The report: one page that needs nothing else, with a text for every picture."""

import html.parser
import math
import re
import sys

import pytest
import torch

pytest.importorskip("matplotlib", reason="needs the extra [plot]")
pytest.importorskip("jinja2", reason="needs the extra [plot]")

from fairseq_entmax.__main__ import main
from fairseq_entmax.analysis.commands import shared as shared_commands
from fairseq_entmax.analysis.opened import Line, Opened
from fairseq_entmax.analysis.reports import Answered, reference_log_prob, scores, worst
from tests.cli.conftest import data, shared, trained  # noqa: F401  the same fixtures


@pytest.fixture(scope="module")
def arguments(data, trained):  # noqa: F811
    folder = trained("lstm")
    return [str(data), "--path", str(folder / "checkpoint_last.pt"), "--cpu"]


@pytest.fixture(scope="module")
def page(arguments, trained, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("report") / "report.html"
    log = str(trained("lstm") / "train.log")
    options = ["--log", log, "--sentences", "6", "--examples", "2", "--title", "a <b> & c"]
    main(["report", *arguments, *options, "--out", str(out)])
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_library_is_named_before_the_work(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(shared_commands, "open_models", lambda args: pytest.fail("worked before"))
    with pytest.raises(SystemExit) as ended:
        main(["report", "data", "--path", "model.pt", "--out", str(tmp_path / "report.html")])
    assert ended.value.code == 2
    assert "pip install 'fairseq_entmax[plot]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Reader(html.parser.HTMLParser):
    """Tags that must be closed are, in order."""

    EMPTY = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_well_formed_and_tells_what_was_asked(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    for heading in ("Scores", "Search", "Support", "Examples", "Worst errors", "Settings"):
        assert f"<h2>{heading}</h2>" in page
    assert "a &lt;b&gt; &amp; c" in page and "<b>" not in page
    assert "exact match in %" in page and "alpha of the output" in page and "torch 2" in page


def test_it_needs_no_network(page):
    reader = Reader()
    reader.feed(page)
    loads = [(t, n, v) for t, n, v in reader.attributes if n in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for _, _, value in loads)
    assert "script" not in reader.seen and "@import" not in page
    urls = set(re.findall(r"url\(([^)]*)\)", page))
    assert all(url.startswith("#") for url in urls)


def test_every_picture_has_a_text(page):
    reader = Reader()
    reader.feed(page)
    n = reader.seen.count("svg")
    assert n == 1 + 2 * 3 == page.count("<figcaption>") == page.count('role="img"')
    assert page.count("<desc>") == n


def test_it_has_a_light_and_a_dark_side(page):
    assert "color-scheme: light dark" in page and "prefers-color-scheme:dark" in page


def answered(answer, reference, log_prob=-1.0):
    hypothesis = {"positional_scores": torch.tensor([log_prob]), "score": log_prob}
    return Answered(Line(["x"], torch.tensor([4, 2])), list(answer), list(reference), [hypothesis])


def test_scores_of_words_and_of_sentences():
    letters = scores([answered("ab", "ab"), answered("ab", "abc")])
    assert letters == {"exact match in %": 50.0, "mean edit distance in tokens": 0.5}
    words = ["the", "dog", "sleeps", "here", "now"]
    assert scores([answered(words, words)])["BLEU"] == pytest.approx(100)


def test_worst_errors_and_their_references(arguments):
    path, _, checkpoint, _ = arguments
    opened = Opened(path, checkpoint, cpu=True)
    lines = opened.subset("test")[:3]
    texts = [opened.written(line.target) for line in lines]
    wrong = [
        Answered(line, [*text, *"x" * i], text, opened.beam(line))
        for i, (line, text) in enumerate(zip(lines, texts))
    ]
    found = worst(opened, wrong, most=5)
    assert [mistake.distance for mistake in found] == [2, 1]  # the first was right
    best = wrong[2].hypotheses[0]
    if best["tokens"].tolist() == lines[2].target.tolist():
        expected = math.exp(float(best["positional_scores"].double().sum()))
        assert found[0].gold == pytest.approx(expected, rel=1e-4)
    assert reference_log_prob(opened, lines[0]) <= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sentences", "0"], "no sentences to report on"),
        (["--beam", "0"], "--beam must be at least 1"),
        (["--out", "missing/report.html"], "there is no folder missing"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(arguments, options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["report", *arguments, "--out", str(tmp_path / "report.html"), *options])
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
