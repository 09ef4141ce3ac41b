"""Trained models with the data they belong to, opened to be looked into, one sentence at a time."""

import math
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import data_utils
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor

from fairseq_entmax.decoding import Distribution, ExactSearch, distribution_of, make_sparse
from fairseq_entmax.decoding.everywhere import is_sparse, output_alpha_of
from fairseq_entmax.decoding.sparse_beam import longest_allowed

from .segmentation import segmenter

Hypotheses = List[Dict[str, Any]]
_BATCH = 64
_BUDGET = 2000  # prefixes to continue for one answer


class Line(NamedTuple):
    """One source, and its reference if there is one.

    Attributes:
        symbols: what the model reads, as text, without the end of the sentence.
        tokens: their numbers and EOS, (src_len,).
        target: the numbers of the reference and EOS, (tgt_len,).
        id: its number in the data set; None for raw text.
    """

    symbols: List[str]
    tokens: Tensor
    target: Optional[Tensor] = None
    id: Optional[int] = None


class Opened:
    """The models of one checkpoint, or of an ensemble, and the dictionaries of their data.

    Args:
        data: a folder that fairseq-preprocess wrote, or one with the dictionaries at least.
        paths: ``a.pt``, or ``a.pt:b.pt`` for models that answer together.
        languages: source and target; as the checkpoint or the data say where none are given.
        sentencepiece: a model that cuts raw text; looked for beside the data where none is given.
        cpu: do not use a GPU.

    Attributes:
        name: what to call the models in a picture.

    Raises:
        ValueError: a folder or file that is not there, a checkpoint of another task or other data.
    """

    def __init__(
        self,
        data: str,
        paths: str,
        languages: Sequence[str] = (),
        sentencepiece: Optional[str] = None,
        cpu: bool = False,
    ) -> None:
        self.data, self.paths = data, utils.split_paths(paths)
        for path in self.paths:
            if not Path(path).is_file():
                raise ValueError(f"there is no checkpoint {path}: give --path a file of --save-dir")
        self.device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
        self.settings = checkpoint_utils.load_checkpoint_to_cpu(self.paths[0])["cfg"]
        self.task = _task(data, list(languages) or _languages(data, self.settings["task"]))
        self.models = self._load()
        self.name = _name(self.models)
        self.source_words = self.task.source_dictionary
        self.target_words = self.task.target_dictionary
        self.segment = segmenter(Path(data), self.source_words, sentencepiece)

    def _load(self) -> List[Any]:
        fits = f"give the data that {':'.join(self.paths)} was trained on, not {self.data}"
        try:
            models, _ = checkpoint_utils.load_model_ensemble(self.paths, task=self.task)
        except Exception as error:  # fairseq raises bare ones
            first = str(error).strip().splitlines()[0]
            raise ValueError(f"cannot load the model ({first}): {fits}") from error
        for model in models:
            if not isinstance(model, FairseqEncoderDecoderModel):
                raise ValueError(
                    f"{type(model).__name__} is no model with encoder and decoder, as translation "
                    "and transduction have"
                )
            model.to(self.device).eval()
        return models

    # ---- sentences

    def line(self, text: str) -> Line:
        """Raw text, cut as the data were.

        Raises:
            ValueError: it is empty.
        """
        symbols = self.segment(text)
        if not symbols:
            raise ValueError(f"the input is empty, got {text!r}")
        return Line(symbols, self.encode(symbols))

    def encode(self, symbols: Sequence[str]) -> Tensor:
        """Symbols of the source and EOS, (n + 1,)."""
        words = self.source_words
        return torch.tensor([*(words.index(symbol) for symbol in symbols), words.eos()])

    def subset(self, name: str) -> List[Line]:
        """The lines of a subset that fairseq-preprocess wrote.

        Raises:
            ValueError: there is none of this name.
        """
        try:
            self.task.load_dataset(name)
        except (FileNotFoundError, KeyError):
            there = sorted({path.name.split(".")[0] for path in Path(self.data).glob("*.idx")})
            raise ValueError(
                f"{self.data} has no subset {name!r}, but {', '.join(there)}: see --subset"
            ) from None
        rows = self.task.dataset(name)
        return [self._line(rows[i], i) for i in range(len(rows))]

    def _line(self, row: Dict[str, Any], i: int) -> Line:
        symbols = [self.source_words[token] for token in row["source"].tolist()[:-1]]
        return Line(symbols, row["source"], row["target"], i)

    def sample(self, lines: Sequence[Line]) -> Dict[str, Any]:
        """A batch as fairseq collates it, on the device of the models."""
        rows = [line.tokens for line in lines]
        data = self.task.build_dataset_for_inference(rows, [len(row) for row in rows])
        batch = data.collater([data[i] for i in range(len(data))])
        return utils.move_to_cuda(batch) if self.device.type == "cuda" else batch

    def written(self, tokens: Tensor) -> List[str]:
        """Symbols of the target, (n,) with or without EOS."""
        words = self.target_words
        return [words[token] for token in tokens.tolist() if token != words.eos()]

    # ---- searches

    def beam(self, line: Line, beam: int = 5, nbest: int = 0) -> Hypotheses:
        """The hypotheses of beam search by log p, certified; all of the beam where nbest is 0."""
        return self.beams([line], beam, nbest)[0]

    def beams(self, lines: Sequence[Line], beam: int = 5, nbest: int = 0) -> List[Hypotheses]:
        """Those of many lines, in their order."""
        generator = make_sparse(self._generator(beam), nbest=nbest, certify=True)
        order = sorted(range(len(lines)), key=lambda i: len(lines[i].tokens))
        found: Dict[int, Hypotheses] = {}
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            found.update(zip(batch, self._search(generator, [lines[i] for i in batch])))
        return [found[i] for i in range(len(lines))]

    def exact(
        self, line: Line, nbest: int = 1, mass: Optional[float] = None, max_expansions: int = 10000
    ) -> Hypotheses:
        """The most probable strings, proven: ``nbest`` of them, or until they have ``mass``."""
        generator = ExactSearch(
            self._generator(1), nbest=nbest, mass=mass, max_expansions=max_expansions
        )
        return self._search(generator, [line])[0]

    def distribution(
        self, line: Line, strings: int = 1000, mass: float = 0.99, max_expansions: int = 10000
    ) -> Distribution:
        """What is proven of all strings: those that exact search lists until they have ``mass``."""
        longest = longest_allowed(self._generator(1), self.sample([line]))
        hypotheses = self.exact(line, strings, mass, max_expansions)
        return distribution_of(hypotheses, self.target_words, longest)

    def _generator(self, beam: int) -> Any:
        options = Namespace(beam=beam, unnormalized=True, min_len=0, max_len_a=2.0, max_len_b=20)
        return self.task.build_generator(self.models, options)

    def _search(self, generator: Any, lines: Sequence[Line]) -> List[Hypotheses]:
        sample = self.sample(lines)
        found = dict(
            zip(sample["id"].tolist(), self.task.inference_step(generator, self.models, sample))
        )
        return [found[i] for i in range(len(lines))]

    def answer(self, line: Line) -> Tensor:
        """The tokens of the most probable string, EOS included: of sparse models by exact search
        within a budget, for beam search may miss it; of others the best that a beam of 5 finds.

        Raises:
            ValueError: no string has p > 0 within the length limits.
        """
        exact = is_sparse(self.models)
        found = self.exact(line, max_expansions=_BUDGET) if exact else self.beam(line, 5)
        if found[0]["score"] == -math.inf:
            raise ValueError("the model allows no string for this input within the length limits")
        tokens: Tensor = found[0]["tokens"].cpu()
        return tokens


def _name(models: Sequence[Any]) -> str:
    """What to call models in a picture: the alphas of their outputs."""
    alphas = [output_alpha_of(model) or 1.0 for model in models]
    names = ["softmax" if alpha == 1 else f"{alpha:g}-entmax" for alpha in alphas]
    return " and ".join(f"{n} x {name}" if n > 1 else name for name, n in Counter(names).items())


def _languages(data: str, trained: Any) -> List[Optional[str]]:
    """Those of the training, or else of the files in the folder."""
    named = [getattr(trained, name, None) for name in ("source_lang", "target_lang")]
    folder = utils.split_paths(data)[0]
    if None in named and Path(folder).is_dir():
        named = list(data_utils.infer_language_pair(folder))
    return named


def _task(data: str, languages: Sequence[Optional[str]]) -> Any:
    config = TranslationConfig(data=data)
    # what is otherwise filled in from other groups of fairseq's configuration
    config.dataset_impl, config.train_subset, config.required_seq_len_multiple = None, "", 1
    config.source_lang, config.target_lang = languages
    for language in languages:
        path = Path(utils.split_paths(data)[0]) / f"dict.{language}.txt"
        if not path.is_file():
            raise ValueError(
                f"{data} has no dictionary dict.{language or 'LANGUAGE'}.txt: name a folder that "
                "fairseq-preprocess wrote, and its languages with --languages SOURCE TARGET"
            )
    return TranslationTask.setup_task(config)
