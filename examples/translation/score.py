"""What a search found, as text, with BLEU, chrF, empty answers and the support of the model.

    python score.py TEST/beam5 --test TEST --model spm.model --tgt en --train raw.en \\
        --train-log train.log

Beside them: how many different words the answers have, and the recall of reference words by how
often they stand in the training text. A model that plays safe with frequent words loses there
before it loses BLEU.
"""

import argparse
import json
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

import sentencepiece
from prepare import read_lines
from sacrebleu.metrics import BLEU, CHRF

from fairseq_entmax.analysis import read_generation
from fairseq_entmax.data.files import write_json, write_lines

# sacrebleu's advice for languages written without blanks; its own tokeniser for ja needs MeCab
TOKENIZERS = {"zh": "zh", "ja": "char"}
# name: least and greatest count in the training text
BANDS = {
    **{"0": (0, 0), "1-4": (1, 4), "5-9": (5, 9), "10-49": (10, 49), "50-199": (50, 199)},
    **{"200+": (200, float("inf")), "<10": (0, 9), "<50": (0, 49)},
}


def hypotheses(generated: Path, model: Path) -> List[str]:
    """The best answer to every line, pieces put together."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return [pieces.decode(s.candidates[0].tokens) for s in read_generation(generated)]


def logged(validated: Path, name: str) -> float:
    """A figure of fairseq-validate's last log line (``--log-format json``).

    Raises:
        SystemExit: it logged none.
    """
    lines = validated.read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if f'"test_{name}"' in line]
    if not found:
        raise SystemExit(f"{validated}: fairseq-validate logged no {name}")
    return float(json.loads(found[-1][found[-1].index("{") :])[f"test_{name}"])


def words_per_second(log: Path) -> float:
    """The median over a training's progress lines: a pause of the machine does not count."""
    found = re.findall(r"\| train(?:_inner)? .*\bwps[= ]([\d.]+)", log.read_text(encoding="utf-8"))
    rates = [rate for rate in map(float, found) if rate > 0]
    return statistics.median(rates) if rates else float("nan")


def scores(answers: List[str], references: List[str], tokenizer: str) -> Dict[str, Any]:
    """Corpus BLEU and chrF2 by sacrebleu, with BLEU's signature."""
    if len(answers) != len(references):
        raise SystemExit(f"{len(answers)} answers to {len(references)} lines: decode again")
    bleu = BLEU(tokenize=tokenizer)
    return {
        "bleu": bleu.corpus_score(answers, [references]).score,
        "chrf": CHRF().corpus_score(answers, [references]).score,
        "lines": len(references),
        "empty": sum(not answer for answer in answers),
        "signature": str(bleu.get_signature()),
    }


def distinct_words(lines: Iterable[str]) -> int:
    """How many different words stand in tokenised lines."""
    return len({word for line in lines for word in line.split()})


def recall_by_count(
    answers: List[str], references: List[str], trained: Mapping[str, int]
) -> Dict[str, Dict[str, Any]]:
    """Recall of reference words, in bands of their count in the training text.

    recall = sum over sentences and words of min(n in answer, n in reference) / n in reference

    Args:
        answers: tokenised, one for each reference.
        references: tokenised.
        trained: count of each word in the training text; what is absent has 0.

    Returns:
        ``recall`` and ``reference_words`` (occurrences), each with a value for every band; the
        recall of a band without a reference word is None.
    """
    found: Counter[int] = Counter()  # by count in the training text
    wanted: Counter[int] = Counter()
    for answer, reference in zip(answers, references):
        given = Counter(answer.split())
        for word, n in Counter(reference.split()).items():
            count = trained.get(word, 0)
            found[count] += min(n, given[word])
            wanted[count] += n
    recall: Dict[str, Optional[float]] = {}
    words: Dict[str, int] = {}
    for band, (least, greatest) in BANDS.items():
        words[band] = sum(n for count, n in wanted.items() if least <= count <= greatest)
        matched = sum(n for count, n in found.items() if least <= count <= greatest)
        recall[band] = matched / words[band] if words[band] else None
    return {"recall": recall, "reference_words": words}


def word_choice(
    answers: List[str], references: List[str], train: Path, tokenize: Callable[[str], str]
) -> Dict[str, Any]:
    """Different words and recall by frequency, of the words of a tokeniser."""
    trained = Counter(word for line in read_lines(train) for word in tokenize(line).split())
    answers, references = list(map(tokenize, answers)), list(map(tokenize, references))
    return {"words": distinct_words(answers), **recall_by_count(answers, references, trained)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found", type=Path, help="folder with generated.txt; results go there")
    parser.add_argument("--test", type=Path, required=True, help="with reference, validated.json")
    parser.add_argument("--model", type=Path, required=True, help="spm.model of the training")
    parser.add_argument("--tgt", required=True, help="target language")
    parser.add_argument("--train", type=Path, required=True, help="target side of the raw text")
    parser.add_argument("--train-log", type=Path, required=True, help="for the speed of training")
    args = parser.parse_args()

    answers = hypotheses(args.found / "generated.txt", args.model)
    tokenizer = TOKENIZERS.get(args.tgt, "13a")
    references = read_lines(args.test / "reference")
    result = scores(answers, references, tokenizer)
    tokenize = BLEU(tokenize=tokenizer).tokenizer
    result.update(word_choice(answers, references, args.train, tokenize))
    for name in ("support", "gold_in_support"):
        result[name] = logged(args.test / "validated.json", name)
    result["words_per_second"] = words_per_second(args.train_log)
    write_lines(args.found / "hypotheses", answers)
    write_json(args.found / "result.json", result)
    print(
        f"translation: bleu={result['bleu']:.2f} chrf={result['chrf']:.2f} "
        f"support={result['support']:.2f} lines={result['lines']} "
        f"signature={result['signature']}"
    )


if __name__ == "__main__":
    main()
