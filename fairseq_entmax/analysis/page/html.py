"""Jinja2 templates become pages that need no network."""

from pathlib import Path
from typing import Any

from fairseq_entmax.analysis.pictures import Picture, svg
from fairseq_entmax.analysis.pictures.files import style_sheet
from fairseq_entmax.analysis.trees import percent

_HERE = Path(__file__).parent


def page(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of values; text is escaped.

    Raises:
        ValueError: there is no Jinja2.
    """
    return str(environment().get_template(template).render(**values))


def environment() -> Any:
    """Jinja2's, with a filter ``picture`` that draws and one ``percent``."""
    try:
        import jinja2
        import markupsafe
    except ImportError:
        raise ValueError(
            "pages are written with Jinja2: pip install 'fairseq_entmax[plot]'"
        ) from None
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(_HERE)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def drawn(picture: Picture) -> Any:
        return markupsafe.Markup(svg(picture, in_page=True))

    found.filters.update(picture=drawn, percent=percent)
    style = (_HERE / "style.css").read_text(encoding="utf-8") + style_sheet()
    found.globals["style"] = markupsafe.Markup(style)
    return found
