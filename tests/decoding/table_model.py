"""Models whose next-token distributions are written down, and the brute force over them."""

import functools
import math
from argparse import Namespace

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder, FairseqEncoderDecoderModel, FairseqIncrementalDecoder
from fairseq.tasks import FairseqTask

from fairseq_entmax import compat  # noqa: F401  the wrapper under test


def dictionary(letters):
    result = Dictionary()
    for letter in letters:
        result.add_symbol(letter)
    return result


class TableTask(FairseqTask):
    """Just enough of a task to build generators as every command does."""

    def __init__(self, words):
        super().__init__(Namespace())
        self.words = words

    source_dictionary = property(lambda self: self.words)
    target_dictionary = property(lambda self: self.words)


class TableEncoder(FairseqEncoder):
    """Hands the source tokens on: the first one names the sentence."""

    def forward(self, src_tokens, src_lengths=None, **kwargs):
        return {"encoder_out": [src_tokens]}

    def reorder_encoder_out(self, encoder_out, new_order):
        return {"encoder_out": [encoder_out["encoder_out"][0].index_select(0, new_order)]}

    def max_positions(self):
        return 1000


class TableDecoder(FairseqIncrementalDecoder):
    """p(next | sentence, prefix) from a function that returns {token: probability}."""

    output_alpha = 1.5

    def __init__(self, words, table):
        super().__init__(words)
        self.table = table

    def forward(self, prev_output_tokens, encoder_out=None, incremental_state=None, **kwargs):
        sources = encoder_out["encoder_out"][0]
        probs = torch.zeros(len(prev_output_tokens), 1, len(self.dictionary))
        for row, (source, prefix) in enumerate(zip(sources.tolist(), prev_output_tokens.tolist())):
            for token, p in self.table(source[0], tuple(prefix[1:])).items():
                probs[row, 0, token] = p
        attention = torch.full((len(sources), 1, sources.size(1)), 1 / sources.size(1))
        return probs, {"attn": [attention]}

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        return net_output[0].log() if log_probs else net_output[0]

    def max_positions(self):
        return 1000


def table_model(words, table, alpha=1.5):
    model = FairseqEncoderDecoderModel(TableEncoder(words), TableDecoder(words, table))
    model.decoder.output_alpha = alpha
    return model


def generate(words, tables, sentences, prefix_tokens=None, packed=None, **options):
    """All hypotheses of a batch of one-token sentences, through task.build_generator."""
    task = TableTask(words)
    models = [table_model(words, table) for table in tables]
    generator = task.build_generator(models, Namespace(**options))
    sample = table_sample(words, sentences)
    return task.inference_step(
        generator, models, sample, prefix_tokens=prefix_tokens, constraints=packed
    )


def table_sample(words, sentences):
    """A batch of one-token sentences."""
    src_tokens = torch.tensor([[sentence, words.eos()] for sentence in sentences])
    net_input = {"src_tokens": src_tokens, "src_lengths": torch.full((len(sentences),), 2)}
    return {"id": torch.arange(len(sentences)), "net_input": net_input}


def strings(words, table, sentence, max_len):
    """{string without EOS: probability} of every string with p > 0 and at most max_len tokens."""
    found, open_prefixes = {}, {(): 1.0}
    for _ in range(max_len + 1):
        grown = {}
        for prefix, mass in open_prefixes.items():
            for token, p in table(sentence, prefix).items():
                if p > 0 and token == words.eos():
                    found[prefix] = mass * p
                elif p > 0:
                    grown[(*prefix, token)] = mass * p
        open_prefixes = grown
    return found


def random_table(words, seed, support, end, depth):
    """A random sparse model: at most `support` continuations, always ended at `depth` if `end`."""
    letters = range(words.nspecial, len(words))

    @functools.lru_cache(maxsize=None)
    def table(sentence, prefix):
        g = torch.Generator().manual_seed(hash((seed, sentence, prefix)) % (1 << 62))
        if end and len(prefix) >= depth:
            return {words.eos(): 1.0}
        choices = [words.eos(), *letters]
        order = torch.randperm(len(choices), generator=g).tolist()
        size = 1 + int(torch.randint(support, (1,), generator=g))
        weights = torch.rand(size, generator=g) + 0.05
        chosen = [choices[i] for i in order[:size]]
        return dict(zip(chosen, (weights / weights.sum()).tolist()))

    return table


def length_normalised(words, found):
    """fairseq's score: log p / (length with EOS)."""
    return {string: math.log(p) / (len(string) + 1) for string, p in found.items()}
