"""The evaluation of language models in which a word may have probability zero."""

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set

import torch
from fairseq import utils
from fairseq.logging.meters import StopwatchMeter
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.multilingual_language_modeling import MultilingualLanguageModelingTask
from torch import Tensor

from .repairs import repair
from .wrapping import words_of, wrap

COMMAND = "fairseq_cli.eval_lm"
EPSILON = 1e-6  # added to every probability


def _leaves_words_out() -> bool:
    if "Evaluation" in words_of(LanguageModelingTask.eval_lm_dataloader):
        return False
    spec = find_spec(COMMAND)  # to import it would set up its logging
    return "skipping tokens with inf scores" in Path(str(spec and spec.origin)).read_text("utf-8")


@repair(_leaves_words_out)
def count_impossible_words() -> None:
    """Let ``fairseq-eval-lm`` say how many words a model held for impossible.

    Fault: words with p = 0 are left out of the average, so that perplexity flatters a model that
    rules words out; the log of it is a traceback, ``--output-word-probs`` an IndexError.
    Versions: every fairseq. Test: tests/compat/test_language_models.py::test_*,
    tests/cli/test_twins.py.
    """

    def eval_lm_dataloader(original: Any, *args: Any, **kwargs: Any) -> Any:
        # the last thing that the command does before it evaluates
        for name in (COMMAND, "__main__"):
            module = sys.modules.get(name)
            if hasattr(module, "eval_lm") and hasattr(module, "WordStat"):
                setattr(module, "eval_lm", Evaluation(module).run)  # noqa: B010
        return original(*args, **kwargs)

    for task in (LanguageModelingTask, MultilingualLanguageModelingTask):
        wrap(task, "eval_lm_dataloader", eval_lm_dataloader)


class Sums(NamedTuple):
    """What is added up over the words of a text; logarithms are natural."""

    words: int = 0
    impossible: int = 0
    log_prob: float = 0.0
    smoothed: float = 0.0  # log (p + epsilon) / (1 + epsilon V), of every piece

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*map(sum, zip(self, other)))

    def results(self) -> Dict[str, float]:
        """``loss`` (base 2) and ``perplexity`` as fairseq's, infinite if a word was impossible."""
        n = max(self.words, 1)
        loss = -self.log_prob / n / math.log(2)
        return {
            "loss": loss,
            "perplexity": 2**loss,
            "epsilon_perplexity": math.exp(-self.smoothed / n),
            "impossible": self.impossible / n,
        }


class Evaluation:
    """fairseq's ``eval_lm`` with its own scorer, logger and statistics, which counts every word.

    Args:
        module: ``fairseq_cli.eval_lm``.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.logger = module, module.logger

    def run(
        self,
        models: List[Any],
        source_dictionary: Any,
        batch_iterator: Any,
        post_process: Optional[str] = None,
        output_word_probs: bool = False,
        output_word_stats: bool = False,
        target_dictionary: Any = None,
        softmax_batch: int = 0,
        remove_bos_token: bool = False,
        device: Any = None,
    ) -> Dict[str, float]:
        """As fairseq's; also logs the share of impossible words and epsilon-perplexity."""
        self.dictionary = source_dictionary
        self.n_words = len(target_dictionary or source_dictionary)
        self.mark = _continuation_mark(post_process)
        self.unfinished = _pieces(source_dictionary, self.mark)
        self.stats: Dict[str, Any] = {}
        scorer = self.module.SequenceScorer(target_dictionary or source_dictionary, softmax_batch)
        device = device or next(models[0].parameters()).device
        timer, sums = StopwatchMeter(), Sums()
        for sample in batch_iterator:
            if "net_input" not in sample:
                continue
            sample = utils.move_to_cuda(sample, device=device)
            timer.start()
            hypotheses = scorer.generate(models, sample)
            timer.stop(sample["ntokens"])
            for number, (hypothesis, *_) in zip(sample["id"].tolist(), hypotheses):
                begin = int(remove_bos_token)
                tokens = hypothesis["tokens"][begin:]
                log_probs = hypothesis["positional_scores"][begin:].double()
                sums = sums.plus(self.sums(tokens, log_probs))
                if output_word_probs or output_word_stats:
                    words = self.words(tokens.tolist(), log_probs.tolist())
                    if output_word_probs:
                        texts = ("{} [{:2f}]".format(*word[:2]) for word in words)
                        self.logger.info(f"{number} " + "\t".join(texts))
                    self.count(words)
        self.say(sums, timer)
        if output_word_stats:
            for stat in sorted(self.stats.values(), key=lambda stat: -stat.count):
                self.logger.info(stat)
        return sums.results()

    def sums(self, tokens: Tensor, log_probs: Tensor) -> Sums:
        """Over one line: (n,) tokens and their log-probabilities."""
        ends = torch.tensor([token not in self.unfinished for token in tokens.tolist()])
        if len(ends):
            ends[-1] = True
        word = ends.cumsum(0) - ends.long()
        dead = (log_probs == -math.inf).cpu()
        smoothed = (log_probs.exp() + EPSILON).log() - math.log1p(EPSILON * self.n_words)
        return Sums(
            int(ends.sum()), len(word[dead].unique()), float(log_probs.sum()), float(smoothed.sum())
        )

    def words(self, tokens: List[int], log_probs: List[float]) -> List[Any]:
        """(word, log p, whether it was joined of subwords) in one line; log p of pieces adds up."""
        words, text, total = [], "", 0.0
        for place, (token, log_prob) in enumerate(zip(tokens, log_probs), 1):
            piece, total = self.dictionary[token], total + log_prob
            if token in self.unfinished and place < len(tokens):
                text += piece[: -len(self.mark)]
            else:
                words.append((text + piece, total, bool(text)))
                text, total = "", 0.0
        return words

    def count(self, words: List[Any]) -> None:
        """Add the words of a line to the statistics, each with the log p of the next one."""
        following = [log_prob for _, log_prob, _ in words[1:]]
        for (word, log_prob, joined), after in zip(words, [*following, None]):
            stat = self.stats.setdefault(word, self.module.WordStat(word, joined))
            stat.add(log_prob, after)

    def say(self, sums: Sums, timer: StopwatchMeter) -> None:
        speed = 1.0 / timer.avg if timer.avg > 0 else 0
        self.logger.info(f"Evaluated {timer.n:,} tokens in {timer.sum:.1f}s ({speed:.2f} tokens/s)")
        results = sums.results()
        self.logger.info(
            f"Impossible words (p = 0): {results['impossible']:.4%} ({sums.impossible:,} of "
            f"{sums.words:,}), epsilon-perplexity ({EPSILON:g}): "
            f"{results['epsilon_perplexity']:.2f}"
        )


def _continuation_mark(post_process: Optional[str]) -> str:
    """What a piece ends with whose word goes on."""
    if post_process is not None and post_process not in ("subword_nmt", "@@ "):
        raise NotImplementedError(f"--post-process={post_process} is not implemented")
    return "@@" if post_process else ""


def _pieces(dictionary: Any, mark: str) -> Set[int]:
    return {i for i in range(len(dictionary)) if mark and dictionary[i].endswith(mark)}
