"""What is drawn: blank zeros, marks, any script, the same bytes; files whole or not at all."""

import re
import sys
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="needs the extra [plot]")

from fairseq_entmax.analysis.pictures import Picture, svg, write
from fairseq_entmax.analysis.pictures.bars import step_bars
from fairseq_entmax.analysis.pictures.branches import Grove, trees
from fairseq_entmax.analysis.pictures.files import missing_line
from fairseq_entmax.analysis.pictures.heat import Panel, heat_maps
from fairseq_entmax.analysis.pictures.lines import Panel as Curves
from fairseq_entmax.analysis.pictures.lines import Series, panels
from fairseq_entmax.analysis.pictures.theme import DARK, LIGHT, settings
from fairseq_entmax.analysis.steps import Step
from fairseq_entmax.analysis.trees import Branch

PROBS = [[1.0, 0.0, 0.0], [0.25, 0.0, 0.75]]


def heat(theme, rows=("a", "b"), columns=("x", "y", "z"), **gate):
    return heat_maps([Panel("cross 1", PROBS, **gate)], list(rows), list(columns), theme)


def curves(theme):
    series = [Series("one", [(0, 1), (1, 2)], [(0, 2), (1, 3)]), Series("two", [(0, 2)], style=1)]
    return panels(
        [Curves("a", "x", "y", series, log=True), Curves("b", "x", "y", bars={1: 2})], theme
    )


def tree(theme):
    branches = [
        Branch("a", 1.0, 1.0, 0, 5, 0.5, 0.5, None, True),
        Branch("b", 0.75, 0.75, 5, 10, 0.5, 0, "ab", True),
        Branch("", 0.25, 0.25, 5, 10, 0.5, 1, "a", False),
    ]
    return trees([Grove("all 2 possible strings", branches)], theme)


def bars(theme):
    return step_bars([Step(["a", "</s>"], [0.75, 0.2], "a", "</s>", 3, 0.05)] * 5, theme, "x")


DRAWN = {"heat": heat, "curves": curves, "tree": tree, "bars": bars}
over_drawings = pytest.mark.parametrize("draw", list(DRAWN.values()), ids=list(DRAWN))


def picture(draw, **more):
    return Picture(draw, "a title & <more>", "what is to be seen", **more)


def texts(content):
    root = ElementTree.fromstring(content)
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_zeros_are_blank_and_the_rest_is_outlined():
    with settings(["DejaVu Sans"]):
        figure = heat(LIGHT)
    cells = figure.axes[0].collections[0]
    assert len(cells.get_paths()) == sum(p > 0 for row in PROBS for p in row)
    assert len(cells.get_edgecolor()) == 1 and cells.get_linewidth()[0] > 0
    alphas = cells.get_facecolor()[:, 3]
    assert alphas[0] > alphas[2] > alphas[1]  # 1, 0.75, 0.25


def test_the_gate_stands_beside_its_map():
    with settings(["DejaVu Sans"]):
        figure = heat(LIGHT, gate=[[1.0, 0.0], [0.5, 0.5]])
    assert [len(a.collections[0].get_paths()) for a in figure.axes] == [3, 3, 4]  # and the key


@over_drawings
def test_svg_is_well_formed_and_tells_what_it_shows(draw):
    content = svg(picture(draw, seed=7))
    root = ElementTree.fromstring(content)
    assert root.get("role") == "img" and root.get("aria-label") == "a title & <more>"
    assert root[0].text == "a title & <more>" and root[1].text == "what is to be seen (seed 7)"


@over_drawings
def test_the_same_numbers_give_the_same_bytes(draw, tmp_path):
    for name in ("one.svg", "two.svg"):
        write(picture(draw), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@over_drawings
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_other_formats(draw, kind, tmp_path):
    path = tmp_path / f"picture.{kind}"
    write(picture(draw), path, dark=True)
    start = {"png": b"\x89PNG", "pdf": b"%PDF"}[kind]
    assert path.read_bytes().startswith(start) and len(list(tmp_path.iterdir())) == 1


@over_drawings
def test_every_colour_has_a_dark_one(draw):
    """SVG is drawn in light colours, each of which a style sheet replaces."""
    light, dark = svg(picture(draw)), svg(picture(draw), dark=True)
    themes = [{*t[:4], *t.series} for t in (LIGHT, DARK)]
    body = light.partition("</style>")[2]
    for content, allowed in ((body, themes[0]), (dark, themes[1])):
        used = set(re.findall(r"(?:fill|stroke): (#\w{6})", content))
        assert used and used <= allowed
    assert "prefers-color-scheme" in light and "prefers-color-scheme" not in dark
    assert len(themes[0]) == len(LIGHT.series) + 4  # one meaning each


def contrast(color, ground):
    def luminance(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(color), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out(theme):
    for color in (theme.ink, theme.faint, *theme.series):
        assert contrast(color, theme.ground) >= 4.5  # WCAG 2, level AA


def test_text_of_any_script_is_kept_as_it_is():
    labels = ["家", "مرحبا", "e\u0301", "\U0001f600", "$x$", "<b>&"]
    content = svg(picture(lambda t: heat(t, columns=labels[:3], rows=labels[3:5]), labels=labels))
    assert set(labels[:5]) <= set(texts(content))


def test_what_no_font_has_is_said_in_one_line(tmp_path, capsys):
    lone = "\U0010fffd"  # private use
    write(picture(lambda t: heat(t, rows=(lone, "b")), labels=[lone]), tmp_path / "a.png")
    assert capsys.readouterr().err.count("\n") == 1
    assert "\u00e9" in missing_line({"\u00e9"})


def test_the_answer_and_the_chances_are_written():
    content = texts(svg(picture(tree)))
    assert any("75%" in t and "ab" in t and "reference" in t for t in content)
    assert sum("reference" in t for t in content) == 1


def test_steps_name_what_is_left_out():
    content = texts(svg(picture(bars)))
    assert [t for t in content if "possible" in t][:2] == ["1.  3 possible", "2.  3 possible"]
    assert content.count("1 others, 5%") == 5


@pytest.mark.parametrize("name", ["picture.gif", "picture", "missing/picture.png"])
def test_a_file_that_cannot_be_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"must end in|no folder"):
        write(picture(heat), tmp_path / name)


def test_a_drawing_that_fails_leaves_nothing(tmp_path):
    def fail(theme):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(picture(fail), tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'fairseq_entmax\[plot\]'"):
        write(picture(heat), tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
