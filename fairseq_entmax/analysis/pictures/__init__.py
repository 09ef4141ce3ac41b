"""Drawing: each function takes numbers and returns a matplotlib Figure; nothing else draws."""

from .files import Picture, svg, write

__all__ = ["Picture", "svg", "write"]
