"""Checkpoints that were made to harm: how each is written, and what is said of it.

What would be executed makes a folder ``pwned`` where the program runs.
"""

import io
import os
import pickle
import tarfile
import zipfile
from argparse import Namespace

import numpy as np
import torch

CODE = "__import__('os').mkdir('pwned')"


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


class _Built:
    """Its state is set by BUILD, with a function of its own choice."""

    def __reduce__(self):
        return Namespace, (), {"a": Hostile()}


# ---- files


def pickled(protocol):
    return lambda path: path.write_bytes(pickle.dumps({"model": Hostile()}, protocol=protocol))


def content(data):
    return lambda path: path.write_bytes(data)


def saved(value):
    return lambda path: torch.save(value, str(path))


def _tar(path):
    part = pickle.dumps(Hostile())
    with tarfile.open(str(path), "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))


def zipped(records, compression=zipfile.ZIP_STORED):
    def write(path):
        with zipfile.ZipFile(str(path), "w", compression) as archive:
            for name, data in records.items():
                archive.writestr(f"archive/{name}", data)

    return write


def _truncated(path):
    torch.save({"model": {"a": torch.zeros(1000)}}, str(path))
    path.write_bytes(path.read_bytes()[:-100])


def _bomb(path):
    """Its weights are compressed: 40 MB in 40 KB."""
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(10_000_000)}}, buffer)
    with zipfile.ZipFile(buffer) as whole:
        records = {n.split("/", 1)[1]: whole.read(n) for n in whole.namelist()}
    zipped(records, zipfile.ZIP_DEFLATED)(path)


FILES = {
    **{f"protocol {n}": pickled(n) for n in range(6)},
    "REDUCE": saved({"model": {}, "args": Hostile()}),
    "BUILD": saved({"model": {}, "args": _Built()}),
    "INST": content(b"(S'pwned'\nios\nmkdir\n."),
    "OBJ": content(b"\x80\x02(cos\nmkdir\nX\x05\x00\x00\x00pwnedo."),
    "STACK_GLOBAL": content(b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x05pwned\x85R."),
    "EXT": content(b"\x80\x02\x82\x01."),
    "PERSID": content(b"Ppwned\n."),
    "array of objects": saved({"model": {}, "args": np.array([Hostile()], dtype=object)}),
    "legacy tar": _tar,
    "text": content(b"this is no checkpoint\n"),
    "page": content(b"<!DOCTYPE html><title>404</title>"),
    "nothing": content(b""),
    "zeros": content(bytes(4096)),
    "empty zip": zipped({}),
    "zip of others": zipped({"readme.txt": b"hello"}),
    "zip of a pickle": zipped({"data.pkl": pickle.dumps(Hostile()), "version": b"3\n"}),
    "zip of no pickle": zipped({"data.pkl": b"x", "version": b"3\n"}),
    "truncated zip": _truncated,
    "zip bomb": _bomb,
    "list": saved([1]),
    "number": saved(3),
    "tensor": saved(torch.zeros(3)),
}


# ---- settings and weights: of a checkpoint's state, in place


def model(**settings):
    return lambda state: vars(state["cfg"]["model"]).update(settings)


def group(name, value):
    return lambda state: state["cfg"].update({name: value})


def top(**values):
    return lambda state: state.update(values)


def without(name):
    return lambda state: state.pop(name)


def weight(change):
    def apply(state):
        name = "encoder.embed_tokens.weight"
        state["model"][name] = change(state["model"][name])

    return apply


def key(name, value):
    return lambda state: state["model"].update({name: value})


def args(**values):
    return top(cfg=None, args=Namespace(**values))


FOREIGN = "it was trained on other data or for other code, or it is damaged"
HUGE = "far more than the file holds"
MEMORY = "allocate"
ALPHA = "must be >= 1 and finite"

# refused while the model is loaded: the change, and what is said
REFUSED = {
    "code: layers": (model(encoder_layers=CODE), FOREIGN),
    "code: width": (model(encoder_embed_dim=CODE), FOREIGN),
    "code: positions": (model(max_source_positions=CODE), FOREIGN),
    "code: alpha": (model(output_alpha=CODE), ALPHA),
    "code: attention": (model(attention_alpha=CODE), ALPHA),
    "code: schedule": (model(output_alpha_schedule=CODE), "must be FROM:BEGIN:END"),
    "code: cutoff": (model(adaptive_softmax_cutoff=CODE), "refused to evaluate the setting"),
    "code: activation": (model(activation_fn=CODE), "not supported"),
    "code: embeddings": (model(encoder_embed_path=CODE), "No such file or directory"),
    "code: kept layers": (model(decoder_layers_to_keep=CODE), FOREIGN),
    "code: arch": (model(_name=CODE, arch=CODE), FOREIGN),
    "code: arch of args": (args(arch=CODE, task="translation"), FOREIGN),
    "code: task of args": (args(arch="transformer_entmax_tiny", task=CODE), FOREIGN),
    "code: model": (group("model", CODE), FOREIGN),
    "code: cfg": (top(cfg=CODE), FOREIGN),
    "code: history": (top(optimizer_history=CODE), FOREIGN),
    "code: extra state": (top(extra_state=CODE), FOREIGN),
    "code: weights": (top(model=CODE), "its model must be a dictionary, got str"),
    "interpolation": (model(encoder_embed_path="${oc.env:HOME}"), "'${oc.env:HOME}'"),
    "arch: number": (model(_name=3, arch=3), FOREIGN),
    "arch: list": (model(_name=["lstm"], arch=["lstm"]), FOREIGN),
    "arch: dictionary": (model(_name={"a": 1}, arch={"a": 1}), FOREIGN),
    "model: list": (group("model", [1]), FOREIGN),
    "cfg: nothing": (top(cfg=None), FOREIGN),
    "cfg: list": (top(cfg=[CODE]), FOREIGN),
    "cfg: empty": (top(cfg={}), FOREIGN),
    "huge width": (model(encoder_embed_dim=10**12, decoder_embed_dim=10**12), MEMORY),
    "large width": (model(encoder_ffn_embed_dim=10**8), HUGE),
    "huge depth": (model(encoder_layers=10**9), HUGE),
    "huge positions": (model(max_source_positions=10**13), MEMORY),
    "huge heads": (model(encoder_attention_heads=10**12), "divisible"),
    "no heads": (model(encoder_attention_heads=0), FOREIGN),
    "less than no layers": (model(encoder_layers=-1), "Unexpected key"),
    "tensor as a width": (model(encoder_embed_dim=torch.tensor([32])), FOREIGN),
    "alpha nan": (model(output_alpha=float("nan")), ALPHA),
    "alpha inf": (model(encoder_attention_alpha=float("inf")), ALPHA),
    "alpha 0": (model(cross_attention_alpha=0), ALPHA),
    "alpha list": (model(output_alpha=[1.5]), ALPHA),
    "temperature": (model(output_temperature=float("nan")), "must be a number > 0"),
    "no weights": (without("model"), "KeyError: 'model'"),
    "list of weights": (top(model=[1]), "its model must be a dictionary, got list"),
    "weight: text": (weight(lambda w: CODE), FOREIGN),
    "weight: number": (weight(lambda w: 3), FOREIGN),
    "weight: whole numbers": (weight(lambda w: w.long()), "floating point, got torch.int64"),
    "weight: bits": (weight(lambda w: w > 0), "floating point, got torch.bool"),
    "weight: complex": (weight(lambda w: w.to(torch.complex64)), "got torch.complex64"),
    "weight: no data": (weight(lambda w: w.to("meta")), FOREIGN),
    "weight: sparse": (weight(lambda w: w.to_sparse()), FOREIGN),
    "weight: other words": (weight(lambda w: w[:-1]), "size mismatch"),
    "weight: endless": (weight(lambda w: torch.zeros(1).expand(10**6, 10**6)), "size mismatch"),
    "weight too many": (key("decoder.evil", torch.zeros(1)), "Unexpected key"),
    "weight without a name": (key(3, torch.zeros(1)), FOREIGN),
    "weight missing": (lambda s: s["model"].popitem(), "Missing key"),
}

# taken, and without any effect
IGNORED = {
    "user-dir": group("common", {"user_dir": "evil"}),
    "user-dir of the model": model(user_dir="evil"),
    "code: bpe": group("bpe", {"_name": CODE}),
    "code: criterion": group("criterion", {"_name": CODE}),
    "code: optimizer": group("optimizer", {"_name": "adam", "adam_betas": CODE}),
    "other data": group("task", {"_name": "translation", "data": "/etc/passwd"}),
    "more settings": model(encoder={"embed_dim": CODE}),
    "double precision": weight(lambda w: w.double()),
}
