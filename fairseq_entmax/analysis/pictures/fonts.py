"""Fonts of this system for text in any script."""

from functools import lru_cache
from typing import FrozenSet, Iterable, List, Set, Tuple

BASE = "DejaVu Sans"  # comes with matplotlib
# what a reader of SVG is to fall back to
_GENERIC = "sans-serif"


def families_for(texts: Iterable[str]) -> Tuple[List[str], Set[str]]:
    """The families to draw these texts with, and the characters that no font here has."""
    wanted = {c for text in texts for c in text if not c.isspace() and not _invisible(c)}
    families = [BASE]
    missing = wanted - _characters(_path_of(BASE))
    if missing:
        for family, path in _others():
            found = missing & _characters(path)
            if found:
                families.append(family)
                missing -= found
            if not missing:
                break
    return [*families, _GENERIC], missing


def _invisible(character: str) -> bool:
    """Joiners, directions and variation selectors, which change their neighbours."""
    code = ord(character)
    return 0x200B <= code <= 0x200F or 0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE01EF


@lru_cache(maxsize=None)
def _path_of(family: str) -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(family))


def _others() -> List[Tuple[str, str]]:
    """(family, file) of the upright fonts of middle weight, those without serifs first."""
    from matplotlib import font_manager

    fonts = [
        font
        for font in font_manager.fontManager.ttflist
        if font.style == "normal"
        and str(font.weight) in ("400", "normal", "regular", "book")
        and not font.name.startswith("Last Resort")  # boxes for everything
    ]
    fonts.sort(key=lambda font: ("Sans" not in font.name, "Noto" not in font.name, font.name))
    return [(font.name, font.fname) for font in fonts]


@lru_cache(maxsize=None)
def _characters(path: str) -> FrozenSet[str]:
    """What a font can draw; nothing where matplotlib cannot use it (colour bitmaps)."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap()) if font.scalable else ())
    except (RuntimeError, OSError):
        return frozenset()
