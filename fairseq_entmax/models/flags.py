"""Command-line flags of the sparse twins, and their defaults."""

import math
from argparse import ArgumentParser, ArgumentTypeError
from difflib import get_close_matches
from typing import Any, Dict, Iterable, Sequence

from fairseq_entmax.modules.output import KNOWN_ALPHAS
from fairseq_entmax.modules.sparsify import AttentionAlphas

DEFAULT_ALPHA = 1.5


def add_alpha_args(
    parser: ArgumentParser,
    attentions: Sequence[str] = AttentionAlphas._fields,
    output: bool = True,
    temperature: bool = True,
) -> None:
    """--output-alpha and the --attention-alpha family, saved with the model.

    Only flags that change something are offered.

    Args:
        parser: of fairseq's command line.
        attentions: which of encoder, decoder and cross the model has.
        output: it has a distribution over words.
        temperature: its attention is scaled multi-head attention.
    """

    def add_alpha(name: str, explanation: str) -> None:
        parser.add_argument(name, type=alpha_value, metavar="A", help=explanation)

    def add_temperature(name: str, explanation: str) -> None:
        parser.add_argument(name, type=float, metavar="T", help=explanation)

    if output:
        add_alpha(
            "--output-alpha",
            "alpha of the output layer, >= 1; 1 is softmax, 2 is sparsemax (default: 1.5)",
        )
        add_temperature(
            "--output-temperature",
            "the scores of a sparse output are divided by it; scores of a softmax model want about "
            "5 at alpha 1.5 (default: 1, and a transformer starts with scores near 0)",
        )
        _add_schedule(parser, "output")
    if not attentions:
        return
    add_alpha("--attention-alpha", "alpha of all attention, >= 1 (default: 1.5)")
    _add_schedule(parser, "attention")
    for where in attentions:
        explanation = f"alpha of the {where} attention (default: --attention-alpha)"
        add_alpha(f"--{where}-attention-alpha", explanation)
    if temperature:
        add_temperature(
            "--attention-temperature",
            "the scores of sparse attention are divided by it (default: 4 ** (alpha - 1))",
        )
    parser.add_argument(
        "--learn-attention-alpha",
        action="store_true",
        default=None,
        help="learn the alpha of every attention head, in (1, 2), from these on",
    )


def alpha_value(text: str) -> float:
    """An alpha on the command line, refused while the flag it belongs to is known."""
    try:
        alpha = float(text)
    except (TypeError, ValueError):
        alpha = math.nan
    if not 1 <= alpha < math.inf:
        raise ArgumentTypeError(f"must be >= 1 and finite ({KNOWN_ALPHAS}), got {text}")
    return alpha


def _add_schedule(parser: ArgumentParser, kind: str) -> None:
    parser.add_argument(
        f"--{kind}-alpha-schedule",
        metavar="FROM:BEGIN:END",
        help=f"the {kind}'s alpha is FROM until update BEGIN and goes in a straight line to "
        f"--{kind}-alpha at update END, such as 1:0:2000",
    )


def set_alpha_defaults(
    args: Any, attentions: Sequence[str] = AttentionAlphas._fields, output: bool = True
) -> None:
    """Fill in what was not given; also under hydra, which never sees the parser.

    Raises:
        ValueError: something else of a YAML file stands where an alpha should.
    """
    for name in ("output_alpha", "attention_alpha", *map(_name_of, AttentionAlphas._fields)):
        value = getattr(args, name, None)
        if not isinstance(value, (int, float, type(None))):
            setattr(args, name, _alpha_in(name, value))
    if output:
        _default(args, "output_alpha", DEFAULT_ALPHA)
    if not attentions:
        return
    _default(args, "attention_alpha", DEFAULT_ALPHA)
    _default(args, "learn_attention_alpha", False)
    for where in attentions:
        _default(args, _name_of(where), args.attention_alpha)


def check_names(given: Iterable[str], stock: Any) -> None:
    """Settings of a YAML file, which nobody parses, are not nearly those of a sparse model.

    Args:
        given: the names in the file.
        stock: the model class whose own names are right, however near they are.

    Raises:
        ValueError: a name is mistyped; it says which was meant.
    """
    own, ours = (ArgumentParser(add_help=False, conflict_handler="resolve") for _ in range(2))
    stock.add_args(own)
    add_alpha_args(ours)
    known, wanted = ({action.dest for action in parser._actions} for parser in (own, ours))
    for name in given:
        near = get_close_matches(name, wanted, n=1, cutoff=0.85)
        if near and name not in wanted and name not in known:
            raise ValueError(f"model.{name} is no setting of a sparse model: {near[0]}?")


def _name_of(where: str) -> str:
    return f"{where}_attention_alpha"


def _alpha_in(name: str, value: Any) -> float:
    try:
        return alpha_value(value)
    except ArgumentTypeError as error:
        raise ValueError(f"{name} {error}") from None


def _default(args: Any, name: str, value: Any) -> None:
    if getattr(args, name, None) is None:
        setattr(args, name, value)


def sparsify_options(args: Any) -> Dict[str, Any]:
    """What :func:`fairseq_entmax.modules.sparsify` is to do, from a model's arguments."""
    options = {
        name: getattr(args, name, None)
        for name in (
            "attention_temperature",
            "attention_score",
            "learn_attention_alpha",
            "output_temperature",
        )
    }
    overall = getattr(args, "attention_alpha", None)
    for where in AttentionAlphas._fields:
        name = _name_of(where)
        alpha = getattr(args, name, None)
        options[name] = None if alpha == overall else alpha  # else it was not asked for
    options["learn_attention_alpha"] = bool(options["learn_attention_alpha"])
    return {**options, "attention_alpha": 1.0 if overall is None else overall}
