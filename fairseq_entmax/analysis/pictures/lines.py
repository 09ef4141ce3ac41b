"""Curves and bars in panels beside each other."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .theme import Theme, color_axes


class Series(NamedTuple):
    """One curve; ``spread`` is the least and most at each x, ``style`` its number in the legend."""

    name: str
    points: List[Tuple[float, float]]
    spread: Optional[List[Tuple[float, float]]] = None
    style: int = 0


class Panel(NamedTuple):
    """Curves over x, or bars where there is no series.

    Attributes:
        markers: draw a point for each value.
        log: the y-axis is logarithmic.
        whole: x has whole numbers only.
    """

    title: str
    x: str
    y: str
    series: List[Series] = []
    bars: Dict[float, float] = {}
    markers: bool = True
    log: bool = False
    whole: bool = False


def panels(given: Sequence[Panel], theme: Theme, across: int = 2) -> Any:
    """All panels, ``across`` beside each other."""
    from matplotlib.figure import Figure

    across = min(across, len(given))
    down = -(-len(given) // across)
    figure = Figure(figsize=(4.2 * across, 3.1 * down), layout="constrained")
    for number, panel in enumerate(given, 1):
        axes = figure.add_subplot(down, across, number)
        axes.set(xlabel=panel.x, ylabel=panel.y)
        axes.set_title(panel.title, color=theme.ink)
        axes.grid(axis="y", color=theme.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        if panel.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # the usual ones write mathematics
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.yaxis.get_minor_locator().set_params(subs=(2, 5))
        if panel.bars:
            edge = {"edgecolor": theme.faint, "linewidth": 0.5}
            axes.bar(list(panel.bars), list(panel.bars.values()), color=theme.main, **edge)
        _curves(axes, panel, theme)
        axes.xaxis.get_major_locator().set_params(integer=panel.whole)
        color_axes(axes, theme)
    _legends(figure, theme)
    return figure


def _legends(figure: Any, theme: Theme) -> None:
    """One below all panels where they share their names, else one in each."""
    look = {"labelcolor": theme.ink, "fontsize": 9, "handlelength": 2.6}
    found = [axes.get_legend_handles_labels() for axes in figure.axes]
    first, names = found[0]
    if len(names) > 1 and all(labels == names for _, labels in found):
        figure.legend(first, names, loc="outside lower center", ncols=min(5, len(names)), **look)
        return
    for axes, (_, labels) in zip(figure.axes, found):
        if len(labels) > 1:
            axes.legend(loc="best", **look)


def _curves(axes: Any, panel: Panel, theme: Theme) -> None:
    named = set()
    for one in panel.series:
        look = dict(theme.line(one.style))
        if not panel.markers or len(one.points) > 40:
            look.pop("marker")
        x, y = zip(*one.points)
        label = None if one.name in named else one.name
        named.add(one.name)
        axes.plot(x, y, label=label, **look)
        if one.spread:
            low, high = zip(*one.spread)
            axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
