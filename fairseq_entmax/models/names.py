"""A mistyped ``--arch`` names the few that are near it, not all of them."""

import argparse
import difflib
from typing import Any

from fairseq import options
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY

from .kinds import REFUSED

_END = "_entmax"


def known_arch(name: str) -> str:
    """The same name, if an arch has it.

    Raises:
        argparse.ArgumentTypeError: none has; the message says which are near, or why a stock arch
            has no sparse twin.
    """
    if name in ARCH_MODEL_REGISTRY:
        return name
    model = ARCH_MODEL_NAME_REGISTRY.get(name[: -len(_END)] if name.endswith(_END) else "", "")
    if model in REFUSED:
        raise argparse.ArgumentTypeError(f"{name!r} cannot be: {REFUSED[model]}")
    near = difflib.get_close_matches(name, ARCH_MODEL_REGISTRY, n=4, cutoff=0.5)
    known = f"did you mean {', '.join(near)}?" if near else f"none of {len(ARCH_MODEL_REGISTRY)}"
    raise argparse.ArgumentTypeError(
        f"invalid choice: {name!r}, {known} (any stock arch is sparse with {_END} at its end)"
    )


def name_near_archs() -> None:
    """Let fairseq's command lines ask :func:`known_arch`."""
    stock = options.add_model_args
    if getattr(stock, "names_near_archs", False):
        return

    def add_model_args(parser: argparse.ArgumentParser) -> Any:
        group = stock(parser)
        for action in group._group_actions:
            if action.dest == "arch":
                action.choices, action.type = None, known_arch
        return group

    add_model_args.names_near_archs = True  # type: ignore[attr-defined]
    options.add_model_args = add_model_args
