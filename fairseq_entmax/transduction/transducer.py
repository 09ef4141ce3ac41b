"""Words in, answers out, each with what is proven about it."""

import math
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from fairseq import checkpoint_utils, utils
from torch import Tensor

from fairseq_entmax.data.spelling import SIDES, Spelling
from fairseq_entmax.data.transduction import Item
from fairseq_entmax.decoding import make_sparse
from fairseq_entmax.decoding.certificate import lower

from .folder import Settings, checkpoints_in, read_settings

_SIDES = ("source_lang", "target_lang")
_ROWS = 1024  # of a batch, beams included
UNIQUE, PROVEN, OPEN, NOTHING = "unique", "proven", "open", "nothing"

Candidate = Tuple[str, float]


class Answer(NamedTuple):
    """What a search has found for one word.

    Attributes:
        text: the most probable string found.
        probability: no more than that of the text, rounding considered.
        verdict: ``unique``: no other string has p > 0. ``proven``: no other is more probable.
            ``open``: neither is proven. ``nothing``: no string with p > 0 was found.
        candidates: strings with their probabilities, best first.
        complete: the candidates are all strings with p > 0, within the length limits.
        unknown: characters and features that the model has not seen.
        tokens: what the model has written for ``text``.
        copied: unknown characters stand in ``text`` where the model looked at them.

    Example:
        >>> answer = Answer("h aʊ̯ s", 0.75, "proven", [], False, [], ["h", "aʊ̯", "s"])
        >>> answer.is_given(0.5), answer.is_given(0.9)
        (True, False)
    """

    text: str
    probability: float
    verdict: str
    candidates: List[Candidate]
    complete: bool
    unknown: List[str]
    tokens: List[str]
    copied: bool = False

    def is_given(self, threshold: float) -> bool:
        """The only possible answer, or the proven best with at least this probability.

        A copied character is a guess: such an answer is never proven.
        """
        if self.copied:
            return False
        proven = self.verdict == PROVEN and self.probability >= threshold
        return self.verdict == UNIQUE or proven


class Transducer:
    """Models of one folder; they answer together.

    Args:
        folder: what :func:`folder.write` has written.
        beam: width of the search; None: as the folder says.
        temperature: scores are divided by it; see :mod:`.conformal`.
        cpu: do not use a GPU.

    Raises:
        DataError: it is no such folder.

    Example:
        >>> transduce = Transducer.load("g2p/model")    # doctest: +SKIP
        >>> transduce("Haus", lang="ger").text          # doctest: +SKIP
        'h aʊ̯ s'
    """

    def __init__(
        self, folder: Path, beam: Optional[int] = None, temperature: float = 1.0, cpu: bool = False
    ) -> None:
        self.settings: Settings = read_settings(folder)
        self.spelling = Spelling.load(folder)
        paths = [str(path) for path in checkpoints_in(folder)]
        overrides = {"data": str(folder), "eval_transduction": False, **dict(zip(_SIDES, SIDES))}
        self.models, _, self.task = checkpoint_utils.load_model_ensemble_and_task(
            paths, arg_overrides=overrides
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
        for model in self.models:
            model.to(self.device).eval()
        self.beam = beam or self.settings.beam
        self.temperature = temperature
        self.generator = self._build_generator()

    @classmethod
    def load(cls, folder: Union[str, Path], **options: Any) -> "Transducer":
        """A transducer from the path of its folder."""
        return cls(Path(folder), **options)

    def __call__(self, word: str, lang: Optional[str] = None, features: str = "") -> Answer:
        """The answer for one word.

        Raises:
            ValueError: a language that the models do not know, or text without symbols.
        """
        return self.answers([Item(self.language(lang), word, features=features)])[0]

    def language(self, name: Optional[str]) -> str:
        """The name of a known language; the only one, where there is one and none is named."""
        known = self.settings.languages
        if name is None and len(known) == 1:
            return known[0]
        if name not in known:
            got = "none" if name is None else name
            raise ValueError(f"the models know the languages {' '.join(known)}, got {got}")
        return name

    def answers(self, items: Sequence[Item], copy_unknown: bool = False) -> List[Answer]:
        """An answer for each item, in their order.

        Args:
            items: targets are ignored.
            copy_unknown: an unknown character of the source replaces the symbol that was written
                with most attention to it.

        Raises:
            ValueError: an item that has no symbols.
        """
        found: Dict[int, Answer] = {}
        for batch, sources, sample in self._batches(items):
            hypotheses = self.task.inference_step(self.generator, self.models, sample)
            for i, source, answers in zip(batch, sources, hypotheses):
                found[i] = self._answer(source, answers, copy_unknown)
        return [found[i] for i in range(len(items))]

    def samples(self, items: Sequence[Item]) -> Iterator[Tuple[List[int], Dict[str, Any]]]:
        """Batches of items with their targets, and which items they are."""
        for batch, _, sample in self._batches(items, with_targets=True):
            yield batch, sample

    # ---- the search

    def _build_generator(self) -> Any:
        a, b = self.settings.max_len
        options = {"max_len_a": a, "max_len_b": b, "unnormalized": True}
        options.update(beam=self.beam, nbest=self.beam, temperature=self.temperature)
        generator = self.task.build_generator(self.models, Namespace(**options))
        return make_sparse(generator, nbest=self.beam, certify=True)

    def _batches(
        self, items: Sequence[Item], with_targets: bool = False
    ) -> Iterator[Tuple[List[int], List[List[str]], Dict[str, Any]]]:
        sources = [self.spelling.source_tokens(item) for item in items]
        order = sorted(range(len(items)), key=lambda i: len(sources[i]))
        size = max(1, _ROWS // self.beam)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            targets = None
            if with_targets:
                tokens = [self.spelling.target_tokens(items[i]) for i in batch]
                targets = [_encoded(self.task.target_dictionary, line) for line in tokens]
            sample = self._sample([sources[i] for i in batch], targets)
            ids = [batch[i] for i in sample["id"].tolist()]
            yield ids, [sources[i] for i in ids], sample

    def _sample(self, sources: List[List[str]], targets: Optional[List[Tensor]]) -> Dict[str, Any]:
        rows = [_encoded(self.task.source_dictionary, line) for line in sources]
        data = self.task.build_dataset_for_inference(rows, [len(row) for row in rows])
        if targets is not None:
            data.tgt, data.tgt_sizes = targets, [len(row) for row in targets]
        sample = data.collater([data[i] for i in range(len(data))])
        return utils.move_to_cuda(sample) if self.device.type == "cuda" else sample

    # ---- what it has found

    def _answer(
        self, source: List[str], hypotheses: List[Dict[str, Any]], copy_unknown: bool
    ) -> Answer:
        words = self.task.source_dictionary
        places = [i for i, token in enumerate(source) if words.index(token) == words.unk()]
        unknown = [source[i] for i in places]
        alive = [h for h in hypotheses if h["score"] > -math.inf]
        if not alive:
            return Answer("", 0.0, NOTHING, [], False, unknown, [])
        certificate, tokens = hypotheses[0]["certificate"], [self._tokens(h) for h in alive]
        candidates = self._candidates(tokens, alive)
        verdict = self._verdict(certificate, candidates)
        (text, probability), complete = candidates[0], certificate.complete
        answer = Answer(text, probability, verdict, candidates, complete, unknown, tokens[0])
        if copy_unknown and places and tokens[0]:
            copied = _with_copies(tokens[0], alive[0], source, places)
            answer = answer._replace(text=self.spelling.answer(copied), copied=True)
        return answer

    def _verdict(self, certificate: Any, candidates: List[Candidate]) -> str:
        if certificate.complete and len(candidates) == 1:
            return UNIQUE
        if self.spelling.target_pieces is None:  # a string is written in one way
            return PROVEN if certificate.exact else OPEN
        # what was dropped may be other ways to write the second
        second = candidates[1][1] if len(candidates) > 1 else 0.0
        return PROVEN if candidates[0][1] > (second + certificate.pruned) * (1 + 1e-5) else OPEN

    def _tokens(self, hypothesis: Dict[str, Any]) -> List[str]:
        words = self.task.target_dictionary
        return [words[t] for t in hypothesis["tokens"].tolist() if t != words.eos()]

    def _candidates(
        self, tokens: List[List[str]], hypotheses: List[Dict[str, Any]]
    ) -> List[Candidate]:
        """Texts by falling probability; subwords write a text in more than one way."""
        texts: Dict[str, float] = {}
        for line, hypothesis in zip(tokens, hypotheses):
            scores = hypothesis["positional_scores"]
            eps = torch.finfo(scores.dtype).eps
            least = min(0.0, lower(float(scores.double().sum()), len(scores), eps))
            text = self.spelling.answer(line)
            texts[text] = texts.get(text, 0.0) + math.exp(least)
        return sorted(texts.items(), key=lambda pair: -pair[1])


def _encoded(words: Any, tokens: Iterable[str]) -> Tensor:
    return torch.tensor([*(words.index(token) for token in tokens), words.eos()])


def _with_copies(
    tokens: List[str], hypothesis: Dict[str, Any], source: List[str], places: List[int]
) -> List[str]:
    """Unknown symbols of the source, each in place of what looked at it most."""
    attention: Optional[Tensor] = hypothesis["attention"]
    if attention is None or attention.numel() == 0:
        raise ValueError("these models tell no attention: unknown characters cannot be copied")
    first = attention.size(0) - len(source) - 1  # padding to the left
    found = list(tokens)
    for place in places:
        found[int(attention[first + place, : len(tokens)].argmax())] = source[place]
    return found
