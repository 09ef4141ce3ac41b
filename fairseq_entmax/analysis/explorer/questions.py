"""What a browser asks, checked: no number is out of range, no line too long."""

from typing import Any, Mapping, NamedTuple

from fairseq_entmax.analysis.looks import Options

MOST_CHARACTERS, MOST_TOKENS = 1000, 100


class Slider(NamedTuple):
    """A number that the page offers."""

    name: str
    label: str
    least: float
    most: float
    step: float
    value: float

    def read(self, text: str) -> float:
        """The number in a query.

        Raises:
            ValueError: it is none, or out of range.
        """
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not self.least <= value <= self.most or (self.step == 1 and value != int(value)):
            raise ValueError(
                f"{self.name} must be a number from {self.least:g} to {self.most:g}, got "
                f"{text[:40]!r}"
            )
        return value


_DEFAULT = Options()
SLIDERS = (
    Slider("beam", "width of the beam", 1, 20, 1, _DEFAULT.beam),
    Slider("nbest", "strings in the list", 1, 20, 1, _DEFAULT.nbest),
    Slider("mass", "probability in the tree", 0.5, 1, 0.01, _DEFAULT.mass),
)


class Question(NamedTuple):
    """A line of text and how to search for its answers."""

    text: str
    options: Options

    @property
    def values(self) -> Mapping[str, float]:
        """The numbers of the sliders."""
        return {slider.name: getattr(self.options, slider.name) for slider in SLIDERS}


def read_question(query: Mapping[str, str], max_expansions: int) -> Question:
    """The question in a query string.

    Raises:
        ValueError: a line of too many characters, or a number out of range.
    """
    text = query.get("q", "")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the line has {len(text)} characters, {MOST_CHARACTERS} are allowed")
    found: Any = {
        slider.name: slider.read(query[slider.name]) for slider in SLIDERS if slider.name in query
    }
    for name in ("beam", "nbest"):
        if name in found:
            found[name] = int(found[name])
    return Question(text, _DEFAULT._replace(max_expansions=max_expansions, **found))
