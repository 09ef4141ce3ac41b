"""The distributions over the next token, one panel for each step."""

from typing import Any, List, Sequence

from fairseq_entmax.analysis.steps import Step
from fairseq_entmax.analysis.trees import END, width

from .theme import Theme

_BAR, _HEAD = 0.21, 0.5  # inches of a bar, and of what is above the bars of a panel


def step_bars(steps: Sequence[Step], theme: Theme, title: str, across: int = 4) -> Any:
    """A panel for each step, read along the lines: a bar for each token shown."""
    from matplotlib.figure import Figure

    across = min(across, len(steps))
    lines = [steps[i : i + across] for i in range(0, len(steps), across)]
    heights = [_HEAD + _BAR * max(map(_bars, line)) for line in lines]
    label = 0.085 * min(max(width(_shown(t)) for s in steps for t in s.tokens), 24) + 0.2
    wide = label + 1.35
    size = (max(across * wide + 0.15, 4.6), sum(heights) + 0.75)
    figure = Figure(figsize=size)
    top = size[1] - 0.4
    figure.text(0.15 / size[0], (top + 0.12) / size[1], title, fontsize=10.5, color=theme.ink)
    for y, line in enumerate(lines):
        for x, step in enumerate(line):
            high = _BAR * _bars(step)
            box = (x * wide + label, top - _HEAD + 0.1 - high, 0.85, high)
            axes = figure.add_axes([box[0] / size[0], box[1] / size[1], *_of(box[2:], size)])
            _panel(axes, step, y * across + x + 1, label, theme)
        top -= heights[y]
    _key(figure, size, theme)
    return figure


def _of(lengths: Sequence[float], size: Sequence[float]) -> List[float]:
    return [lengths[0] / size[0], lengths[1] / size[1]]


def _bars(step: Step) -> int:
    return len(step.tokens) + (step.rest > 0)


def _shown(token: str) -> str:
    return "end" if token == END else token


def _panel(axes: Any, step: Step, number: int, label: float, theme: Theme) -> None:
    n = _bars(step)
    axes.set_xlim(0, 1)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_axis_off()
    left = -label / 0.85
    possible = "1 possible" if step.support == 1 else f"{step.support} possible"
    head = {"fontsize": 8.5, "color": theme.faint}
    axes.text(left + 0.1, -0.75, f"{number}.  {possible}", **head)
    axes.plot([0, 0], [-0.5, n - 0.5], color=theme.faint, linewidth=0.6)
    for y, (token, prob) in enumerate(zip(step.tokens, step.probs)):
        chosen, gold = token == step.chosen, token == step.gold
        face = theme.main if chosen else theme.grid
        axes.barh(y, prob, height=0.68, color=face, edgecolor=theme.faint, linewidth=0.5)
        text = {"va": "center", "fontsize": 9, "color": theme.ink}
        weight = "bold" if chosen else "normal"
        axes.text(-0.08, y, _shown(token), ha="right", fontweight=weight, **text)
        if gold:
            at = {"marker": "D", "markersize": 4, "color": theme.mark, "clip_on": False}
            axes.plot([prob + 0.07], [y], **at)
        text.update(fontsize=7.5, color=theme.faint)
        axes.text(prob + (0.15 if gold else 0.05), y, _percent(prob), **text)
    if step.rest > 0:
        text = {"va": "center", "fontsize": 7.5, "color": theme.faint}
        others = step.support - sum(p > 0 for p in step.probs)
        axes.text(0.04, n - 1, f"{others} others, {_percent(step.rest)}", **text)


def _percent(prob: float) -> str:
    if prob in (0, 1):
        return f"{100 * prob:.0f}%"
    return f"{100 * prob:.1f}%" if prob >= 0.001 else "<0.1%"


def _key(figure: Any, size: Sequence[float], theme: Theme) -> None:
    axes = figure.add_axes([0, 0, 1, 0.4 / size[1]])
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, 0.4)
    axes.set_axis_off()
    text = {"va": "center", "fontsize": 8.5, "color": theme.faint}
    for x, color, name in ((0.15, theme.main, "chosen"), (1.1, theme.grid, "possible")):
        axes.barh(0.2, 0.16, left=x, height=0.12, color=color, edgecolor=theme.faint, linewidth=0.5)
        axes.text(x + 0.22, 0.2, name, **text)
    axes.plot([2.23], [0.2], marker="D", markersize=4, color=theme.mark)
    axes.text(2.36, 0.2, "gold; probability of the next token in %", **text)
