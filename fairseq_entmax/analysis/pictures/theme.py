"""Colours, on light and on dark ground, that colour-blind readers tell apart, and settings.

In SVG the light colours stand, with a style sheet that puts the dark ones in their place where the
reader's system is dark: no colour may have two meanings in :class:`Theme`.
"""

from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple, Tuple

_DASHES: List[Any] = ["-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)), "-"]
_MARKERS = ["o", "s", "^", "D", "v", "P"]


class Theme(NamedTuple):
    """The colours of a picture: text, less important text, lines of a grid, ground, series."""

    ink: str
    faint: str
    grid: str
    ground: str
    series: Tuple[str, ...]

    @property
    def main(self) -> str:
        """What the picture is about."""
        return self.series[0]

    @property
    def mark(self) -> str:
        """What is to be found at once: the answer."""
        return self.series[1]

    def line(self, number: int) -> Any:
        """Colour, dashes and marker of a series: told apart without colour too."""
        i = number % len(self.series)
        return {"color": self.series[i], "linestyle": _DASHES[i], "marker": _MARKERS[i]}


# Okabe and Ito's colours, darkened or lightened for contrast with the ground
LIGHT = Theme(
    *("#1c1f24", "#656c76", "#dfe3e8", "#ffffff"),
    ("#0072b2", "#c24e00", "#007f5c", "#a8447f", "#8f6a00", "#4a5058"),
)
DARK = Theme(
    *("#eceff3", "#a3abb6", "#3a414a", "#15181d"),
    ("#5ab4ee", "#ff9350", "#3ecf9e", "#e59bc9", "#e6b94d", "#c3c9d1"),
)


def drawing_library() -> Any:
    """matplotlib.

    Raises:
        ValueError: there is none.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError(
            "pictures are drawn with matplotlib: pip install 'fairseq_entmax[plot]'"
        ) from None
    return matplotlib


@contextmanager
def settings(families: List[str], salt: str = "") -> Iterator[None]:
    """matplotlib's settings while a picture is drawn and written.

    Raises:
        ValueError: there is no matplotlib.
    """
    matplotlib = drawing_library()
    own = {
        "font.family": families,
        "font.size": 10,
        "text.parse_math": False,  # a token may be a dollar sign
        "axes.unicode_minus": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "lines.linewidth": 1.8,
        "lines.markersize": 4,
        "legend.frameon": False,
        "svg.fonttype": "none",  # text stays text: shaped, searched and read aloud by the reader
        "svg.hashsalt": f"fairseq_entmax {salt}",  # pages hold several, with names of their own
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(own)
        yield


def color_axes(axes: Any, theme: Theme) -> None:
    """Gives spines, ticks and labels of axes the colours of a theme."""
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_color(theme.faint)
    axes.tick_params(which="both", colors=theme.faint, labelcolor=theme.ink, labelsize=9)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
