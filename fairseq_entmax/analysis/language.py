"""What a language model predicts and writes, under each way to draw from it."""

import math
from argparse import Namespace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import data_utils
from torch import Tensor

from fairseq_entmax.functional.metrics import epsilon_nll, js_divergence, sparsemax_score

Row = Dict[str, Any]


class Strategy(NamedTuple):
    """A way to draw the next word: ``full``, ``greedy``, ``nucleus``, ``topk`` or ``temperature``.

    Attributes:
        value: P, K or T of the last three.
    """

    name: str
    value: float = 0.0

    @classmethod
    def read(cls, text: str) -> "Strategy":
        """From ``full``, ``greedy``, ``nucleus=P``, ``topk=K`` or ``temperature=T``.

        Raises:
            ValueError: it has another form, or the number is out of range.

        Example:
            >>> Strategy.read("nucleus=0.9")
            Strategy(name='nucleus', value=0.9)
        """
        name, equals, number = text.partition("=")
        try:
            made = cls(name, float(number)) if equals else cls(name)
        except ValueError:
            made = cls("")
        right = {
            "full": not equals,
            "greedy": not equals,
            "nucleus": 0 < made.value <= 1,
            "topk": made.value >= 1 and made.value == int(made.value),
            "temperature": 0 < made.value < math.inf,
        }
        if not right.get(made.name):
            raise ValueError(
                "expected full, greedy, nucleus=P with P in (0, 1], topk=K or temperature=T, got "
                f"{text!r}"
            )
        return made

    def probs(self, full: Callable[[float], Tensor]) -> Tensor:
        """The distribution that it draws from, (..., V).

        Args:
            full: the model's own probabilities at a temperature.
        """
        p = full(self.value if self.name == "temperature" else 1.0)
        if self.name == "greedy":
            return torch.zeros_like(p).scatter_(-1, p.argmax(-1, keepdim=True), 1.0)
        if self.name not in ("topk", "nucleus"):
            return p
        ordered, places = p.sort(-1, descending=True)
        if self.name == "topk":
            ordered[..., int(self.value) :] = 0
        else:  # up to and with the word that reaches P
            ordered[ordered.cumsum(-1) - ordered >= self.value] = 0
        kept = torch.zeros_like(p).scatter_(-1, places, ordered)
        return kept / kept.sum(-1, keepdim=True)

    def options(self) -> Row:
        """The same as fairseq's options of generation."""
        return {
            "sampling": self.name != "greedy",
            "sampling_topk": int(self.value) if self.name == "topk" else -1,
            "sampling_topp": self.value if self.name == "nucleus" else -1.0,
            "temperature": self.value if self.name == "temperature" else 1.0,
        }


class LanguageModel:
    """A trained language model with the data it belongs to.

    Args:
        data: a folder that ``fairseq-preprocess --only-source`` wrote.
        path: a checkpoint.

    Raises:
        ValueError: there is no such file, or it is no language model.
    """

    def __init__(self, data: str, path: str, cpu: bool = False) -> None:
        if not Path(path).is_file():
            raise ValueError(f"there is no checkpoint {path}")
        overrides = {"data": data}
        models, _, self.task = checkpoint_utils.load_model_ensemble_and_task([path], overrides)
        (self.model,) = models
        if hasattr(self.model, "encoder") or not hasattr(self.task, "eval_lm_dataloader"):
            raise ValueError(f"{path} is no language model, but {type(self.model).__name__}")
        self.cuda = torch.cuda.is_available() and not cpu
        if self.cuda:
            self.model.cuda()
        self.model.eval()
        self.data, self.words = data, self.task.target_dictionary

    @torch.no_grad()
    def predictions(
        self, subset: str, strategy: Strategy, epsilon: float, window: int, seed: int
    ) -> Row:
        """How well the next words of a subset are predicted.

        Args:
            epsilon: of epsilon-perplexity.
            window: l, the number of words before in which a repetition is looked for.
            seed: of the draws that rep and wrep count.

        Returns:
            means over words: ``ppl_eps``, ``js``, ``sparsemax_score``, ``support``,
            ``gold_in_support``; ``rep``, the share of drawn words that are among the l before,
            and ``wrep``, of those that are and are wrong (Welleck et al., ICLR 2020).
        """
        torch.manual_seed(seed)
        sums: Dict[str, float] = {}
        n = 0
        for batch in self._batches(subset):
            output = self.model(**batch["net_input"])

            def full(temperature: float, output: Any = output) -> Tensor:
                scores = output[0] / temperature
                probs = self.model.get_normalized_probs((scores, *output[1:]), log_probs=False)
                return probs.float()

            target = batch["target"]
            counted = target != self.words.pad()
            probs = strategy.probs(full)
            drawn = torch.multinomial(probs.flatten(0, 1), 1).view(target.shape)
            repeated = _among(drawn, batch["net_input"]["src_tokens"], window)
            columns = {
                **prediction_columns(probs[counted], target[counted], epsilon),
                "rep": repeated[counted].float(),
                "wrep": (repeated & (drawn != target))[counted].float(),
            }
            for name, column in columns.items():
                sums[name] = sums.get(name, 0.0) + float(column.double().sum())
            n += int(counted.sum())
        means = {name: total / max(n, 1) for name, total in sums.items()}
        return {"ppl_eps": math.exp(means.pop("nll_eps")), **means}

    def _batches(self, subset: str) -> Iterator[Row]:
        self.task.load_dataset(subset)
        iterator = self.task.eval_lm_dataloader(self.task.dataset(subset), batch_size=32)
        for batch in iterator:
            yield utils.move_to_cuda(batch) if self.cuda else batch

    def passages(self, subset: str, given: int, n: int) -> List[List[int]]:
        """The first ``n`` lines of a subset with more than ``given`` words, without EOS.

        Raises:
            ValueError: there is none.
        """
        path = f"{self.data}/{subset}"
        lines = data_utils.load_indexed_dataset(path, self.words)
        if lines is None:
            raise ValueError(f"{self.data} has no subset {subset!r}")
        found = [line.tolist()[:-1] for line in lines if len(line) > given + 1][:n]
        if not found:
            raise ValueError(f"subset {subset!r} has no line of more than {given} words")
        return found

    def write(
        self, passages: Sequence[List[int]], given: int, length: int, strategy: Strategy, seed: int
    ) -> List[List[str]]:
        """A continuation of each passage after its first words, of ``length`` words at most."""
        torch.manual_seed(seed)
        options = {"beam": 1, "max_len_a": 0, "max_len_b": given + length, "min_len": given}
        flags = Namespace(**options, **strategy.options())
        generator = self.task.build_generator([self.model], flags)
        texts: List[List[str]] = []
        for start in range(0, len(passages), 64):
            prefix = torch.tensor([p[:given] for p in passages[start : start + 64]])
            begin = torch.full((len(prefix), 1), self.words.eos())
            sample: Row = {
                "net_input": {
                    "src_tokens": torch.cat([begin, prefix], 1),
                    "src_lengths": torch.full((len(prefix),), given + 1),
                }
            }
            sample = utils.move_to_cuda(sample) if self.cuda else sample
            for found in self.task.inference_step(generator, [self.model], sample):
                texts.append(self.symbols(found[0]["tokens"].tolist()[given:]))
        return texts

    def symbols(self, tokens: Sequence[int]) -> List[str]:
        """Words, without EOS."""
        return [self.words[token] for token in tokens if token != self.words.eos()]


def prediction_columns(probs: Tensor, target: Tensor, epsilon: float) -> Dict[str, Tensor]:
    """The figures of each row of probabilities (n, V) and its reference (n,)."""
    gold = probs.gather(1, target.unsqueeze(1)).squeeze(1)
    return {
        "nll_eps": epsilon_nll(gold, probs.size(1), epsilon),
        "js": js_divergence(gold),
        "sparsemax_score": sparsemax_score(gold, probs.square().sum(1)),
        "support": (probs > 0).sum(1).float(),
        "gold_in_support": (gold > 0).float(),
    }


def _among(drawn: Tensor, before: Tensor, window: int) -> Tensor:
    """Whether each drawn word is among the last ``window`` words read, (bsz, length)."""
    found = torch.zeros_like(drawn, dtype=torch.bool)
    for back in range(min(window, before.size(1))):
        found[:, back:] |= drawn[:, back:] == before[:, : before.size(1) - back]
    return found


# ---- texts


def text_figures(texts: Sequence[List[str]], references: int = 50) -> Row:
    """``length``, ``distinct_1`` to ``distinct_3`` and ``self_bleu`` of texts, as words.

    distinct-n is the number of different n-grams over that of all of them (Li et al., NAACL 2016).
    Self-BLEU is the mean BLEU of a text with the others as references (Zhu et al., SIGIR 2018), in
    percent, among the first ``references`` texts: low where they differ.
    """
    row: Row = {"length": sum(map(len, texts)) / max(len(texts), 1)}
    for n in (1, 2, 3):
        grams = [gram for text in texts for gram in _ngrams(text, n)]
        row[f"distinct_{n}"] = len(set(grams)) / max(len(grams), 1)
    return {**row, "self_bleu": _self_bleu([" ".join(text) for text in texts[:references]])}


def _ngrams(text: Sequence[str], n: int) -> List[Tuple[str, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def _self_bleu(texts: Sequence[str]) -> float:
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True, tokenize="none")
    scores = [
        bleu.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score
        for i, text in enumerate(texts)
        if len(texts) > 1
    ]
    return sum(scores) / max(len(scores), 1)


def as_words(symbols: Sequence[str], blanks: str) -> List[str]:
    """Words of symbols that are characters, of which any of ``blanks`` stands between words; the
    symbols themselves where there are no blanks.

    Example:
        >>> as_words(list("to▁be"), blanks="▁")
        ['to', 'be']
    """
    if not blanks:
        return list(symbols)
    return "".join(" " if symbol in blanks else symbol for symbol in symbols).split()
