"""Tiny fairseq objects that the tests of several floors share."""

import io
from argparse import Namespace
from typing import Any, Dict, Optional, Sequence

import torch
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate
from fairseq.models import ARCH_CONFIG_REGISTRY, build_model
from torch import nn

import fairseq_entmax  # noqa: F401  (registers the archs)

N_WORDS = 20
LENGTHS = (5, 3, 4)

TINY_TRANSFORMER = {
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "decoder_ffn_embed_dim": 24,
    "dropout": 0.0,
}
TINY_LSTM = {
    "encoder_embed_dim": 8,
    "encoder_hidden_size": 12,
    "decoder_embed_dim": 8,
    "decoder_hidden_size": 12,
    "decoder_out_embed_dim": 8,
    "dropout": 0.0,
}


def dictionary(n_words: int = N_WORDS) -> Dictionary:
    words = Dictionary()
    for i in range(n_words):
        words.add_symbol(f"w{i}")
    return words


class Task:
    """What models and criterions ask of a translation task."""

    def __init__(self, n_words: int = N_WORDS) -> None:
        self.source_dictionary = self.target_dictionary = dictionary(n_words)


def arguments(arch: str, **flags: Any) -> Namespace:
    """The namespace that fairseq-train would build a model of this arch from."""
    args = Namespace(arch=arch, **flags)
    ARCH_CONFIG_REGISTRY[arch](args)
    return args


def build(arch: str, seed: int = 3, task: Optional[Task] = None, **flags: Any) -> nn.Module:
    """A tiny model of any arch, always drawn from the same random numbers, in eval mode."""
    torch.manual_seed(seed)
    tiny = TINY_LSTM if "lstm" in arch else TINY_TRANSFORMER
    flags = {"criterion": "entmax_loss" if "entmax" in arch else "cross_entropy", **tiny, **flags}
    return build_model(Namespace(arch=arch, **flags), task or Task()).eval()


def sharpen(model: nn.Module) -> nn.Module:
    """Scale a fresh model's matrices, so that its scores lie far enough apart to be sparse."""
    # fairseq draws an LSTM's weights from [-0.1, 0.1]
    factor = 30.0 if any(isinstance(m, nn.LSTM) for m in model.modules()) else 4.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
    return model


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """Compiled by TorchScript, saved and loaded."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def batch(task: Optional[Task] = None, lengths: Sequence[int] = LENGTHS) -> Dict[str, Any]:
    """A batch of random sentence pairs as fairseq collates it: sorted, sources padded left."""
    words = (task or Task()).source_dictionary
    generator = torch.Generator().manual_seed(5)

    def sentence(length: int) -> torch.Tensor:
        tokens = torch.randint(words.nspecial, len(words), (length,), generator=generator)
        return torch.cat([tokens, torch.tensor([words.eos()])])

    samples = [
        {"id": i, "source": sentence(length), "target": sentence(length + 2 * (i % 2))}
        for i, length in enumerate(lengths)
    ]
    return collate(samples, words.pad(), words.eos())
