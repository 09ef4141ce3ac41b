"""Search: exact search against the recursive search of one sentence that reads every prefix anew,
and beam search of a sparse model against that of its softmax twin.
"""

import math
from argparse import Namespace
from typing import Any, Dict, Iterator, List, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate
from fairseq.models import ARCH_CONFIG_REGISTRY, build_model
from torch import Tensor

from benchmarks.harness import Case, Row, run_all
from benchmarks.words import WordsTask, made_up_words
from fairseq_entmax.decoding import ExactSearch
from fairseq_entmax.functional import entmax_loss

MAX_LEN = 12
SIZES = {
    "transformer_entmax": {
        **{"encoder_embed_dim": 128, "encoder_ffn_embed_dim": 256, "encoder_attention_heads": 4},
        **{"decoder_embed_dim": 128, "decoder_ffn_embed_dim": 256, "decoder_attention_heads": 4},
        **{"encoder_layers": 3, "decoder_layers": 3},
    },
    "lstm_entmax": {
        **{"encoder_embed_dim": 64, "decoder_embed_dim": 64, "decoder_out_embed_dim": 64},
        **{"encoder_hidden_size": 128, "decoder_hidden_size": 128},
    },
}


def exact_search(quick: bool, runs: int) -> Iterator[Row]:
    # the peer takes most of a minute for one
    return run_all(exact_search_cases(quick), min(runs, 3))


def exact_search_cases(quick: bool) -> Iterator[Case]:
    for arch in SIZES:
        model, words = trained_model(arch, updates=300)
        for nbest, n_sentences in ((1, 32),) if quick else ((1, 256), (10, 128)):
            yield _exact_search(arch, model, words, n_sentences, nbest)


def beam_search(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(beam_search_cases(quick), runs)


def beam_search_cases(quick: bool) -> Iterator[Case]:
    for arch in SIZES:
        sparse, words = trained_model(arch, updates=300)
        dense, _ = trained_model(arch, updates=300, alpha=1.0)
        yield _beam_search(arch, sparse, dense, words, n_sentences=32 if quick else 256)


def sentence_pairs(n: int, words: Dictionary, seed: int) -> List[Dict[str, Any]]:
    """Random words of letters; every vowel of the source becomes any of two in the target, so that
    a good model gives several strings a probability.
    """
    g = torch.Generator().manual_seed(seed)
    eos = torch.tensor([words.eos()])
    pairs = []
    for i in range(n):
        length = int(torch.randint(4, MAX_LEN - 2, (1,), generator=g))
        source = torch.randint(words.nspecial, len(words), (length,), generator=g)
        vowel = (source - words.nspecial) % 5 == 0
        other = (source + 1).clamp(max=len(words) - 1)
        target = torch.where(vowel & (torch.rand(length, generator=g) < 0.4), other, source)
        pairs.append(
            {"id": i, "source": torch.cat([source, eos]), "target": torch.cat([target, eos])}
        )
    return pairs


def trained_model(arch: str, updates: int, alpha: float = 1.5) -> Tuple[Any, Dictionary]:
    """A small model of the task above, trained until its output is sparse (alpha > 1)."""
    torch.manual_seed(1)
    words = made_up_words(34)
    args = Namespace(arch=arch, criterion="entmax_loss", dropout=0.0, **SIZES[arch])
    args.output_alpha = args.attention_alpha = alpha
    ARCH_CONFIG_REGISTRY[arch](args)
    model = build_model(args, WordsTask(words))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for update in range(updates):
        batch = collate(sentence_pairs(64, words, seed=update), words.pad(), words.eos())
        optimizer.zero_grad()
        scores = model(**batch["net_input"])[0]
        loss = entmax_loss(
            scores.flatten(0, 1), batch["target"].flatten(), alpha, ignore_index=words.pad()
        )
        loss.backward()
        optimizer.step()
    return model.eval(), words


def recursive_search(model: Any, words: Dictionary, src_tokens: Tensor, nbest: int) -> List[float]:
    """log p of the n best strings of one sentence, depth first, most probable words first; the
    decoder reads the whole prefix at every step (S7's search for transformers).
    """
    encoder_out = model.encoder(src_tokens, src_lengths=torch.tensor([src_tokens.size(1)]))
    best = [-math.inf] * nbest

    def visit(prefix: List[int], log_prob: float) -> None:
        scores = model.decoder(torch.tensor([prefix]), encoder_out=encoder_out)
        log_probs = model.get_normalized_probs(scores, log_probs=True)[0, -1]
        log_probs[words.pad()] = -math.inf
        if len(prefix) > MAX_LEN:
            ends = log_probs[words.eos()].clone()
            log_probs[:] = -math.inf
            log_probs[words.eos()] = ends
        values, order = log_probs.sort(descending=True)
        for step, token in zip(values.tolist(), order.tolist()):
            if log_prob + step <= best[-1]:
                break
            if token == words.eos():
                best[-1] = log_prob + step
                best.sort(reverse=True)
            else:
                visit([*prefix, token], log_prob + step)

    visit([words.eos()], 0.0)
    return best


def _exact_search(arch: str, model: Any, words: Dictionary, n_sentences: int, nbest: int) -> Case:
    sample = collate(sentence_pairs(n_sentences, words, seed=10**6), words.pad(), words.eos())
    task, options = WordsTask(words), Namespace(beam=1, max_len_b=MAX_LEN, min_len=0)
    generator = ExactSearch(task.build_generator([model], options), nbest=nbest)
    net_input = sample["net_input"]

    def ours() -> List[List[float]]:
        found = task.inference_step(generator, [model], sample)
        return [[float(h["score"]) for h in hypotheses] for hypotheses in found]

    @torch.no_grad()
    def peer() -> List[List[float]]:
        rows = zip(net_input["src_tokens"], net_input["src_lengths"].tolist())
        return [recursive_search(model, words, row[-n:].unsqueeze(0), nbest) for row, n in rows]

    def gate() -> float:
        pairs = zip(ours(), peer())
        return max(
            abs(math.exp(a) - math.exp(b))
            for few, all_ in pairs
            for a, b in zip([*few, *[-math.inf] * (nbest - len(few))], all_)
        )

    name = f"{arch}, {n_sentences} sentences, {nbest}-best"
    return Case("exact-search", name, "recursive, one by one", ours, peer, gate, 1e-4)


def _beam_search(arch: str, sparse: Any, dense: Any, words: Dictionary, n_sentences: int) -> Case:
    sample = collate(sentence_pairs(n_sentences, words, seed=10**6), words.pad(), words.eos())
    task = WordsTask(words)

    def best(model: Any, nbest: int) -> List[List[int]]:
        # fairseq's own limit of 200 tokens: what has no end runs into it
        options = Namespace(beam=5, max_len_b=200, min_len=0, nbest=nbest)
        generator = task.build_generator([model], options)
        found = task.inference_step(generator, [model], sample)
        return [hypotheses[0]["tokens"].tolist() for hypotheses in found]

    def gate() -> float:
        """Sentences whose answer differs from that of a search that goes on to the end."""
        return sum(a != b for a, b in zip(best(sparse, 1), best(sparse, 0)))

    def ours() -> List[List[int]]:
        return best(sparse, 1)

    def peer() -> List[List[int]]:
        return best(dense, 1)

    name = f"{arch}, {n_sentences} sentences, beam 5"
    return Case("beam-search", name, "softmax twin, fairseq's search", ours, peer, gate, 0)
