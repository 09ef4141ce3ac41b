"""Command-line flags that every arch of this package has, and their defaults."""

import math
from argparse import ArgumentParser
from typing import Any, NamedTuple, Sequence

from fairseq_entmax.modules import check_learned_start

DEFAULT_ALPHA = 1.5


class AttentionAlphas(NamedTuple):
    encoder: float
    decoder: float
    cross: float


def add_alpha_args(
    parser: ArgumentParser, attentions: Sequence[str] = AttentionAlphas._fields
) -> None:
    """--output-alpha and the --attention-alpha family, saved with the model.

    ``attentions`` names those that the model has: a flag that changes nothing is not offered.
    """
    parser.add_argument(
        "--output-alpha",
        type=float,
        metavar="A",
        help="alpha of the output layer, >= 1; 1 is softmax, 2 is sparsemax (default: 1.5)",
    )
    parser.add_argument(
        "--attention-alpha",
        type=float,
        metavar="A",
        help="alpha of all attention, >= 1 (default: 1.5)",
    )
    for where in attentions:
        parser.add_argument(
            f"--{where}-attention-alpha",
            type=float,
            metavar="A",
            help=f"alpha of the {where} attention (default: --attention-alpha)",
        )
    parser.add_argument(
        "--learn-attention-alpha",
        action="store_true",
        default=None,
        help="learn the alpha of every attention head, in (1, 2), from these on",
    )


def add_temperature_arg(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--attention-temperature",
        type=float,
        metavar="T",
        help="the scores of sparse attention are divided by it (default: 4 ** (alpha - 1))",
    )


def set_alpha_defaults(args: Any) -> None:
    """Fill in what was not given; also under hydra, which never sees the parser."""
    for name in ("output_alpha", "attention_alpha"):
        if getattr(args, name, None) is None:
            setattr(args, name, DEFAULT_ALPHA)
    if getattr(args, "learn_attention_alpha", None) is None:
        args.learn_attention_alpha = False
    for where in AttentionAlphas._fields:
        name = f"{where}_attention_alpha"
        if getattr(args, name, None) is None:
            setattr(args, name, args.attention_alpha)


def attention_alphas(args: Any) -> AttentionAlphas:
    """The alphas in force, checked.

    Raises:
        ValueError: one of them is below 1, or is to be learned and not in (1, 2).
    """
    alphas = AttentionAlphas(
        args.encoder_attention_alpha, args.decoder_attention_alpha, args.cross_attention_alpha
    )
    for where, alpha in zip(alphas._fields, alphas):
        if not alpha >= 1:
            raise ValueError(
                f"--{where}-attention-alpha (or --attention-alpha) must be >= 1 "
                f"(1 is softmax, 2 is sparsemax), got {alpha}"
            )
        if args.learn_attention_alpha:
            check_learned_start(alpha)
    return alphas


def attention_temperature(args: Any, alpha: float) -> float:
    """--attention-temperature, or 4 ** (alpha - 1), which is 1 at softmax.

    Where p is even over n positions, dp/dz of alpha-entmax is n ** (alpha - 1) times softmax's.
    With as large a step in z, heads are on one position, where they have no gradient, before they
    have found the right one. n = 4 undoes that as far as it was found to help
    (examples/translation/RESULTS.md).

    Raises:
        ValueError: it is not a positive number.
    """
    given = getattr(args, "attention_temperature", None)
    if given is None:
        return 4 ** (alpha - 1)
    if not 0 < given < math.inf:
        raise ValueError(f"--attention-temperature must be a number > 0, got {given}")
    return given
