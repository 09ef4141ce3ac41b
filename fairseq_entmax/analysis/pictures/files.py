"""Pictures in files: the ending of the name says how, the same numbers give the same bytes."""

import io
import re
import sys
import warnings
from html import escape
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple

from fairseq_entmax.data.files import whole

from . import fonts, theme
from .theme import DARK, LIGHT, Theme

FORMATS = (".png", ".svg", ".pdf")
_DPI = 160


class Picture(NamedTuple):
    """Something to draw.

    Attributes:
        draw: makes the matplotlib Figure.
        title: a line, for those who look for it.
        text: what is to be seen, for those who cannot see it.
        labels: all text from data, for which fonts are needed.
        seed: of the random choices behind the numbers; it is noted in the file.
    """

    draw: Callable[[Theme], Any]
    title: str
    text: str
    labels: List[str] = []
    seed: int = 0


def check_ending(path: Path) -> None:
    """Raises:
    ValueError: no picture can be written there.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out must end in {', '.join(FORMATS)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    theme.drawing_library()


def write(picture: Picture, path: Path, dark: bool = False) -> None:
    """Draws into a file, whole or not at all.

    Args:
        dark: for a dark page; SVG follows its reader unless this is set.

    Raises:
        ValueError: another ending, no folder, no matplotlib.
    """
    check_ending(path)
    kind = path.suffix.lower()[1:]
    with whole(path) as part:
        content = svg(picture, dark).encode() if kind == "svg" else _drawn(picture, dark, kind)
        part.write_bytes(content)


def svg(picture: Picture, dark: bool = False, in_page: bool = False) -> str:
    """SVG that follows the reader's light or dark setting, or is always dark.

    Args:
        in_page: to stand in HTML, which has :func:`style_sheet` itself.
    """
    text = _drawn(picture, dark, "svg").decode()
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # pages hold several pictures
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    head, _, rest = text.partition("<svg ")
    attributes, _, body = rest.partition(">")
    label = escape(picture.title, quote=True)
    named = f"<title>{escape(picture.title)}</title><desc>{escape(_note(picture))}</desc>"
    style = "" if dark or in_page else f"<style>{style_sheet()}</style>"
    opened = f'<svg role="img" aria-label="{label}" {attributes}>{named}{style}'
    return ("" if in_page else head) + opened + body


def _drawn(picture: Picture, dark: bool, kind: str) -> bytes:
    with theme.settings([fonts.BASE]):
        families, missing = fonts.families_for([picture.title, *picture.labels])
    if missing:
        print(missing_line(missing), file=sys.stderr)
    with theme.settings(families, picture.title), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # said above
        figure = picture.draw(DARK if dark else LIGHT)
        figure.set_facecolor((DARK if dark else LIGHT).ground)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=_metadata(picture, kind))
    return buffer.getvalue()


def missing_line(missing: Iterable[str]) -> str:
    """What to say of characters that no font has."""
    shown = " ".join(sorted(missing)[:10])
    return (
        f"no font of this system draws {shown} (boxes stand in PNG and PDF): install Noto's fonts, "
        "or write .svg, which its reader draws"
    )


def _note(picture: Picture) -> str:
    return f"{picture.text} (seed {picture.seed})"


def _metadata(picture: Picture, kind: str) -> Dict[str, Any]:
    note = _note(picture)
    if kind == "png":
        return {"Title": picture.title, "Description": note, "Software": None}
    if kind == "pdf":
        return {"Title": picture.title, "Subject": note, "CreationDate": None}
    return {"Date": None, "Creator": None, "Format": None, "Type": None}


def style_sheet() -> str:
    """The dark colours for the light ones, wherever matplotlib has written one into a style."""
    pairs = zip((*LIGHT[:4], *LIGHT.series), (*DARK[:4], *DARK.series))
    rules = [
        f'[style*="{role}: {light}"]{{{role}:{dark} !important}}'
        for light, dark in pairs
        for role in ("fill", "stroke")
    ]
    return f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"
