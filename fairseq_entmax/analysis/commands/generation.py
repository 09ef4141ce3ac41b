"""What language models predict and write: figures that are finite for sparse ones, repetition."""

import argparse
import time
from typing import Any, Dict, List

from fairseq_entmax.analysis.language import LanguageModel, Strategy, as_words, text_figures
from fairseq_entmax.data.files import write_json

from . import shared

_EXAMPLE = "data-bin --model entmax=lm.pt --sampling full nucleus=0.9 --json generation.json"
_COLUMNS = {
    **{"model": "model", "sampling": "sampling", "ppl_eps": "ppl_eps", "js": "js"},
    **{"sparsemax_score": "sp", "support": "support", "gold_in_support": "gold in support"},
    **{"rep": "rep", "wrep": "wrep", "distinct_1": "distinct-1", "distinct_2": "distinct-2"},
    **{"distinct_3": "distinct-3", "self_bleu": "self-BLEU", "length": "length"},
}


def strategy(text: str) -> Strategy:
    """As :meth:`Strategy.read`, with the error that argparse prints."""
    try:
        return Strategy.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("generation", __doc__, _EXAMPLE)
    made.add_argument("data", help="folder that fairseq-preprocess --only-source wrote")
    shared.add_named_models(made)
    made.add_argument(
        "--sampling",
        nargs="+",
        type=strategy,
        default=[Strategy("full")],
        help="full (the model's own distribution), greedy, nucleus=P, topk=K, temperature=T",
    )
    made.add_argument("--subset", default="test", help="(default: test)")
    made.add_argument(
        "--passages", type=shared.at_least_one, default=200, help="to continue (default: 200)"
    )
    made.add_argument(
        "--given", type=shared.at_least_one, default=32, help="words of each (default: 32)"
    )
    made.add_argument(
        "--length", type=shared.at_least_one, default=128, help="words to write (default: 128)"
    )
    made.add_argument("--epsilon", type=float, default=1e-6, help="of ppl_eps (default: 1e-6)")
    made.add_argument(
        "--window", type=shared.at_least_one, default=32, help="l of rep (default: 32)"
    )
    made.add_argument(
        "--blanks", default="", help="where words are characters: those between real words"
    )
    made.add_argument("--seed", type=int, default=1, help="of the draws (default: 1)")
    made.add_argument(
        "--texts", type=shared.at_least_one, default=3, help="to keep in the JSON (default: 3)"
    )
    shared.add_cpu(made)
    shared.add_json(made, "the rows")
    return made


def main(arguments: List[str]) -> None:
    """Prints a row for each model and way to draw, and one for the text itself."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    rows: List[Dict[str, Any]] = []
    for name, path in args.model:
        model = LanguageModel(args.data, path, args.cpu)
        passages = model.passages(args.subset, args.given, args.passages)
        if not rows:
            end = args.given + args.length
            texts = [model.symbols(passage[args.given : end]) for passage in passages]
            rows.append({"model": "the text", "sampling": "", **_texts_row(args, texts)})
        for drawn in args.sampling:
            label = f"{drawn.name}={drawn.value:g}" if drawn.value else drawn.name
            options = (args.subset, drawn, args.epsilon, args.window, args.seed)
            predicted = model.predictions(*options)
            begun = time.process_time()
            written = model.write(passages, args.given, args.length, drawn, args.seed)
            seconds = {"cpu_seconds": time.process_time() - begun}
            rows.append({"model": name, "sampling": label, **predicted, **seconds})
            rows[-1].update(_texts_row(args, written))
        if args.json:
            write_json(args.json, rows)
    print(table(rows))


def _texts_row(args: argparse.Namespace, texts: List[List[str]]) -> Dict[str, Any]:
    words = [as_words(text, args.blanks) for text in texts]
    kept = [" ".join(text) for text in words[: args.texts]]
    length = sum(map(len, texts)) / len(texts)  # in words of the model
    return {**text_figures(words), "length": length, "texts": kept}


def table(rows: List[Dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| " + " | ".join(_COLUMNS.values()) + " |", "| --- | --- " + "| ---: " * 12 + "|"]
    lines += ["| " + " | ".join(_cell(row.get(key)) for key in _COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
