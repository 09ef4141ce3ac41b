"""fairseq-generate's search, sentences per second against the softmax twin, in one process."""

import random
from argparse import Namespace
from typing import Any, Callable, Dict, Iterator

import torch
from fairseq.data.language_pair_dataset import collate
from fairseq.models import ARCH_CONFIG_REGISTRY, build_model

from benchmarks.harness import Case, Row, run_all
from benchmarks.peaked import SUPPORT, check_support, set_support
from benchmarks.words import WordsTask, made_up_words

BEAM, LENGTH = 5, 20  # every hypothesis is 20 words long, so that all twins take equal steps
TWINS = {"output sparse": 1.0, "output and attention sparse": 1.5}  # alpha of the attention


def decode(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(cases(quick), runs)


def cases(quick: bool) -> Iterator[Case]:
    for v in (10000,) if quick else (10000, 32000):
        task = WordsTask(made_up_words(v))
        for sentences in (8,) if quick else (8, 100):
            batch = sentence_batch(sentences, task.words)
            softmax = iwslt("transformer_iwslt_de_en", task)
            set_support(softmax, batch["net_input"])
            peer = search(softmax, task, batch)
            for twin, alpha in TWINS.items():
                name = f"V={v} beam {BEAM}, {sentences} sentences, {twin}"
                sparse = iwslt("transformer_entmax_iwslt_de_en", task, alpha)
                set_support(sparse, batch["net_input"])
                check_support(sparse, batch["net_input"], SUPPORT, f"decode {name}")
                on, off = (search(sparse, task, batch, step) for step in ("auto", "off"))
                gate = differing(on, off)
                yield Case("decode", name, "softmax twin", on, peer, gate, 1e-5)
                if not quick:
                    name += ", step off"
                    yield Case("decode", name, "softmax twin", off, peer, lambda: 0.0, 0)


def iwslt(arch: str, task: WordsTask, attention_alpha: float = 1.0) -> Any:
    """A model with random weights, the same for twins."""
    torch.manual_seed(1)
    args = Namespace(arch=arch, share_all_embeddings=True, attention_alpha=attention_alpha)
    ARCH_CONFIG_REGISTRY[arch](args)
    return build_model(args, task).eval()


def sentence_batch(n: int, words: Any) -> Dict[str, Any]:
    """Sources with captions' lengths."""
    g = torch.Generator().manual_seed(0)
    lengths = random.Random(0)
    pairs = []
    for i in range(n):
        length = max(4, round(lengths.gauss(13, 4)))
        source = torch.randint(words.nspecial, len(words), (length,), generator=g)
        source = torch.cat([source, torch.tensor([words.eos()])])
        pairs.append({"id": i, "source": source, "target": source})
    return collate(pairs, words.pad(), words.eos())


def search(model: Any, task: WordsTask, batch: Any, step: str = "auto") -> Callable[[], Any]:
    """What fairseq-generate does with one batch."""
    options = Namespace(
        beam=BEAM, nbest=1, max_len_a=0, max_len_b=LENGTH, min_len=LENGTH, sparse_step=step
    )
    generator = task.build_generator([model], options)
    generator.sparse_step = step
    return lambda: task.inference_step(generator, [model], batch)


def differing(ours: Callable[[], Any], dense: Callable[[], Any]) -> Callable[[], float]:
    """The largest difference of a score; infinite where the words are others."""

    def gate() -> float:
        worst = 0.0
        for found, expected in zip(ours(), dense()):
            if found[0]["tokens"].tolist() != expected[0]["tokens"].tolist():
                return float("inf")
            worst = max(worst, abs(float(found[0]["score"] - expected[0]["score"])))
        return worst

    return gate
