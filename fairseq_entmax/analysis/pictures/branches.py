"""The tree of all strings that a model allows."""

from typing import Any, List, NamedTuple, Sequence

from fairseq_entmax.analysis.trees import Branch, percent, width

from .theme import Theme

_COLUMN, _ROW = 0.082, 0.3  # inches of a character and of a leaf


class Grove(NamedTuple):
    """One tree and what is written above it."""

    title: str
    branches: List[Branch]


def trees(groves: Sequence[Grove], theme: Theme) -> Any:
    """Trees below each other, growing to the right; thicker branches have more probability."""
    from matplotlib.figure import Figure

    heights = [_ROW * _leaves(grove) + 0.65 for grove in groves]
    size = (max(map(_width, groves)), sum(heights))
    figure = Figure(figsize=size)
    bottom = size[1]
    for grove, height in zip(groves, heights):
        bottom -= height
        tall = height - 0.5
        axes = figure.add_axes([0, bottom / size[1], 1, tall / size[1]])
        axes.set_xlim(-3, size[0] / _COLUMN - 3)
        axes.set_ylim(tall / _ROW - 0.9, -0.6)
        axes.set_axis_off()
        at = (0.15 / size[0], (bottom + height - 0.3) / size[1])
        figure.text(*at, grove.title, fontsize=10.5, color=theme.ink)
        for branch in grove.branches:
            _draw(axes, branch, theme)
    return figure


def _leaves(grove: Grove) -> int:
    return sum(branch.leaf is not None for branch in grove.branches)


def _leaf_text(branch: Branch) -> str:
    answer = "   \u25c0 reference" if branch.answer else ""
    return f"{percent(branch.mass)}   {branch.leaf or '(empty)'}{answer}"


def _width(grove: Grove) -> float:
    right = max(
        branch.end + (width(_leaf_text(branch)) + 2) * 1.05
        for branch in grove.branches
        if branch.leaf is not None
    )
    return max(_COLUMN * (right + 5), _COLUMN * 1.1 * width(grove.title), 3.0)


def _draw(axes: Any, branch: Branch, theme: Theme) -> None:
    color = theme.mark if branch.answer else theme.main
    thick = 0.8 + 3.2 * branch.mass
    bend = branch.start + 0.7
    axes.plot(
        [branch.start, bend, branch.end],
        [branch.top, branch.row, branch.row],
        color=color,
        linewidth=thick,
        solid_capstyle="round",
    )
    middle = (bend + branch.end) / 2
    weight = "bold" if branch.answer else "normal"
    above = {"ha": "center", "va": "bottom", "fontsize": 9.5, "color": theme.ink}
    axes.text(middle, branch.row - 0.06, branch.label, fontweight=weight, **above)
    if branch.leaf is None or branch.prob < 1 - 1e-6:
        below = {"ha": "center", "va": "top", "fontsize": 7, "color": theme.faint}
        axes.text(middle, branch.row + 0.13, percent(branch.prob), **below)
    if branch.leaf is not None:
        axes.plot([branch.end], [branch.row], marker="o", markersize=3.5, color=color)
        at = {"va": "center", "fontsize": 9.5, "color": theme.ink, "fontweight": weight}
        axes.text(branch.end + 1.2, branch.row, _leaf_text(branch), **at)
