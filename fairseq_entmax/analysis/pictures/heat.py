"""Attention as a map: rows attend to columns, and what is exactly zero stays blank."""

from typing import Any, List, NamedTuple, Optional, Sequence

from fairseq_entmax.analysis.trees import width

from .theme import Theme

_MOST_NUMBERS = 150  # cells that have their percent written into them


class Panel(NamedTuple):
    """One map: probs (rows, columns), and at its right how much each head counts, (rows, heads)."""

    title: str
    probs: List[List[float]]
    gate: Optional[List[List[float]]] = None


def heat_maps(
    panels: Sequence[Panel],
    rows: Sequence[str],
    columns: Sequence[str],
    theme: Theme,
    axes: Sequence[str] = ("target", "source"),
    across: int = 2,
) -> Any:
    """Maps of the same rows and columns, ``across`` beside each other."""
    from matplotlib.figure import Figure

    cell = 0.3 if max(len(rows), len(columns)) <= 30 else 0.2
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    numbers = cell == 0.3 and _nonzero(panels) <= _MOST_NUMBERS
    left, top = _inches(rows) + 0.35, _inches(columns) + 0.65
    gates = 0.4 if any(panel.gate for panel in panels) else 0.0
    titles = max(_inches([panel.title]) for panel in panels)
    wide = max(left + cell * len(columns) + gates + 0.25, titles + 0.2)
    high = top + cell * len(rows) + 0.4
    size = (max(across * wide, 3.6), down * high + 0.65)
    figure = Figure(figsize=size)
    for i, panel in enumerate(panels):
        x, y = (i % across) * wide + left, size[1] - (i // across) * high - top
        box = (x, y - cell * len(rows), cell * len(columns), cell * len(rows))
        one = figure.add_axes(_share(box, size))
        _map(one, panel.probs, rows, columns, theme, numbers)
        title = figure.text(0, 0, panel.title, color=theme.ink, fontsize=10.5)
        title.set_position(((x - left + 0.08) / size[0], (y + top - 0.22) / size[1]))
        one.set_xlabel(axes[1], color=theme.faint, fontsize=9)
        if i % across == 0:
            one.set_ylabel(axes[0], color=theme.faint, fontsize=9)
        if panel.gate is not None:
            strip = (box[0] + box[2] + 0.12, box[1], 0.3, box[3])
            _gate(figure.add_axes(_share(strip, size)), panel.gate, theme)
    _key(figure, size, theme)
    return figure


def _inches(labels: Sequence[str]) -> float:
    return 0.085 * max(map(width, labels)) + 0.1


def _share(box: Sequence[float], size: Sequence[float]) -> List[float]:
    return [box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]]


def _nonzero(panels: Sequence[Panel]) -> int:
    return max(sum(p > 0 for row in panel.probs for p in row) for panel in panels)


def _map(
    axes: Any,
    probs: List[List[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    theme: Theme,
    numbers: bool,
) -> None:
    _cells(axes, probs, theme.main, theme, numbers)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], rows)
    axes.tick_params(
        top=False, bottom=False, left=False, labeltop=True, labelbottom=False, labelcolor=theme.ink
    )
    for tick, name in zip(axes.xaxis.get_major_ticks(), columns):
        tick.label2.set_rotation(0 if width(name) <= 2 else 90)
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(theme.grid)


def _cells(
    axes: Any, probs: List[List[float]], color: str, theme: Theme, numbers: bool = False
) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    inked = [(y, x, p) for y, row in enumerate(probs) for x, p in enumerate(row) if p > 0]
    corners = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for y, x, _ in inked]
    # with numbers the ground stays light enough to read them
    strength = 0.56 if numbers else 0.88
    fills = [to_rgba(color, 0.06 + strength * p) for _, _, p in inked]
    axes.add_collection(
        PolyCollection(corners, facecolors=fills, edgecolors=theme.faint, linewidths=0.4)
    )
    for y, x, p in inked if numbers else []:
        text = f"{100 * p:.0f}" if p >= 0.005 else "<1"
        at = {"ha": "center", "va": "center", "fontsize": 7, "color": theme.ink}
        axes.text(x + 0.5, y + 0.5, text, **at)


def _gate(axes: Any, gate: List[List[float]], theme: Theme) -> None:
    """How much each head counts at each row, a column for each."""
    _cells(axes, gate, theme.mark, theme)
    axes.set_xlim(0, len(gate[0]))
    axes.set_ylim(len(gate), 0)
    axes.set_axis_off()
    axes.text(0, -0.25, "gate", fontsize=8, color=theme.mark)


def _key(figure: Any, size: Sequence[float], theme: Theme) -> None:
    axes = figure.add_axes(_share((0.3, 0.3, 5 * 0.26, 0.18), size))
    shown = [0.0, 0.1, 0.25, 0.5, 1.0]
    _cells(axes, [shown], theme.main, theme)
    axes.set_xlim(0, len(shown))
    axes.set_ylim(1, 0)
    axes.set_axis_off()
    for i, p in enumerate(shown):
        at = {"ha": "center", "va": "top", "fontsize": 7.5, "color": theme.faint}
        axes.text(i + 0.5, 1.2, f"{100 * p:.0f}", **at)
    text = "weight in %; blank is exactly 0"
    axes.text(5.3, 0.95, text, fontsize=8.5, color=theme.faint)
