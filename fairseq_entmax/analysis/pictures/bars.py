"""The distributions over the next token, one panel for each step."""

from typing import Any, List, Sequence

from fairseq_entmax.analysis.steps import Step
from fairseq_entmax.analysis.trees import END, percent, width

from .theme import Theme

# inches: a bar's height and greatest length, what is above the bars of a panel, and beside them
_BAR, _LENGTH, _HEAD, _BESIDE = 0.21, 0.85, 0.5, 1.35
_LONGEST = 24  # columns of a label


def step_bars(steps: Sequence[Step], theme: Theme, title: str, across: int = 4) -> Any:
    """A panel for each step, read along the lines: a bar for each token shown."""
    from matplotlib.figure import Figure

    across = min(across, len(steps))
    lines = [steps[i : i + across] for i in range(0, len(steps), across)]
    heights = [_HEAD + _BAR * max(map(_bars, line)) for line in lines]
    label = 0.085 * min(max(width(_shown(t)) for s in steps for t in s.tokens), _LONGEST) + 0.2
    wide = label + _BESIDE
    size = (max(across * wide + 0.15, 4.6), sum(heights) + 0.75)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))  # in inches; many axes would take long
    axes.set_xlim(0, size[0])
    axes.set_ylim(size[1], 0)
    axes.set_axis_off()
    axes.text(0.15, 0.28, title, fontsize=10.5, color=theme.ink)
    top = 0.4
    for y, line in enumerate(lines):
        for x, step in enumerate(line):
            _panel(axes, (x * wide, top, label), step, y * across + x + 1, theme)
        top += heights[y]
    _key(axes, top + 0.15, theme)
    return figure


def _bars(step: Step) -> int:
    return len(step.tokens) + (step.rest > 0)


def _shown(token: str) -> str:
    return "end" if token == END else token


def _panel(axes: Any, place: Sequence[float], step: Step, number: int, theme: Theme) -> None:
    x, y, label = place
    possible = f"{number}.  {step.support} possible"
    axes.text(x + 0.1, y + 0.33, possible, fontsize=8.5, color=theme.faint)
    left, y = x + label, y + _HEAD - 0.1
    axes.plot([left, left], [y, y + _BAR * _bars(step)], color=theme.faint, linewidth=0.6)
    for token, prob in zip(step.tokens, step.probs):
        _bar(axes, left, y, token, prob, step, theme)
        y += _BAR
    if step.rest > 0:
        others = step.support - sum(p > 0 for p in step.probs)
        text = f"{others} others, {percent(step.rest)}"
        at = {"va": "center", "fontsize": 7.5, "color": theme.faint}
        axes.text(left + 0.04, y + _BAR / 2, text, **at)


def _bar(
    axes: Any, left: float, y: float, token: str, prob: float, step: Step, theme: Theme
) -> None:
    chosen, gold, middle = token == step.chosen, token == step.gold, y + _BAR / 2
    _box(axes, left, middle, _LENGTH * prob, theme.main if chosen else theme.grid, theme)
    name = {"fontsize": 9, "color": theme.ink, "fontweight": "bold" if chosen else "normal"}
    axes.text(left - 0.07, middle, _shown(token), ha="right", va="center", **name)
    end = left + _LENGTH * prob
    if gold:
        axes.plot([end + 0.06], [middle], marker="D", markersize=4, color=theme.mark)
        end += 0.09
    at = {"va": "center", "fontsize": 7.5, "color": theme.faint}
    axes.text(end + 0.05, middle, percent(prob), **at)


def _box(axes: Any, left: float, middle: float, length: float, color: str, theme: Theme) -> None:
    from matplotlib.patches import Rectangle

    look = {"facecolor": color, "edgecolor": theme.faint, "linewidth": 0.5}
    axes.add_patch(Rectangle((left, middle - 0.07), length, 0.14, **look))


def _key(axes: Any, y: float, theme: Theme) -> None:
    text: Any = {"va": "center", "fontsize": 8.5, "color": theme.faint}
    names: List[Any] = [(0.15, theme.main, "chosen"), (1.1, theme.grid, "possible")]
    for x, color, name in names:
        _box(axes, x, y, 0.16, color, theme)
        axes.text(x + 0.22, y, name, **text)
    axes.plot([2.23], [y], marker="D", markersize=4, color=theme.mark)
    axes.text(2.36, y, "gold; probability of the next token in %", **text)
