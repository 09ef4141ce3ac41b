"""What two processes under gloo compute together; a script: ``python two_processes.py FOLDER``.

It imports fairseq once and forks both. ``FOLDER/found.pt`` is {(model, backend): (loss, gradients)}
summed over both halves of the batch.
"""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
import torch.distributed as dist
from fairseq.data.language_pair_dataset import collate
from fairseq.models import DistributedFairseqModel

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from tests.builders import Task, batch, build, sharpen

BART = {
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{"decoder_embed_dim": 16, "max_source_positions": 32, "max_target_positions": 32},
}
MODELS: Dict[str, Tuple[str, Dict[str, Any]]] = {
    "transformer": ("transformer_entmax_tiny", {}),
    "bart": ("bart_base_entmax", BART),
    "lstm": ("lstm_entmax", {}),
    "learned alpha": ("transformer_entmax_tiny", {"learn_attention_alpha": True}),
}
# --ddp-backend, --find-unused-parameters
BACKENDS: List[Tuple[str, bool]] = [
    ("pytorch_ddp", False),
    ("pytorch_ddp", True),
    ("legacy_ddp", False),
]
TASK = Task()
LENGTHS = (7, 5, 4, 2)


def model_and_batch(name: str) -> Tuple[Any, Dict[str, Any]]:
    """The model of a name with a sparse output, ready for training, and the joined batch.

    In float64, for a sharpened LSTM makes large gradients of small rounding errors.
    """
    arch, flags = MODELS[name]
    model = sharpen(build(arch, task=TASK, **flags)).double().train()
    return model, batch(TASK, LENGTHS)


def step(model: Any, sample: Dict[str, Any]) -> float:
    """Forward and backward; returns the summed loss."""
    loss, _, _ = EntmaxLossCriterion(TASK, False, label_smoothing=0.1)(model, sample)
    loss.backward()
    return loss.item()


def half(sample: Dict[str, Any], rank: int) -> Dict[str, Any]:
    """Every second sentence of a batch, collated anew."""
    words = TASK.target_dictionary
    pairs = list(zip(sample["net_input"]["src_tokens"], sample["target"]))[rank::2]
    sentences = [
        {"id": i, "source": source[source != words.pad()], "target": target[target != words.pad()]}
        for i, (source, target) in enumerate(pairs)
    ]
    return collate(sentences, words.pad(), words.eos())


def together(name: str, backend: str, find_unused: bool, rank: int) -> Tuple[float, Dict[str, Any]]:
    options = Namespace(
        **{"tpu": False, "ddp_backend": backend, "find_unused_parameters": find_unused},
        **{"device_id": 0, "broadcast_buffers": False, "bucket_cap_mb": 25},
        **{"gradient_as_bucket_view": False, "ddp_comm_hook": "none", "heartbeat_timeout": -1},
    )
    model, sample = model_and_batch(name)
    wrapped = DistributedFairseqModel(options, model, dist.group.WORLD, torch.device("cpu"))
    loss = torch.tensor(step(wrapped, half(sample, rank)), dtype=torch.float64)
    if backend == "legacy_ddp":
        wrapped.all_reduce_grads()
    dist.all_reduce(loss)
    # both backends hand out the mean over the processes
    return loss.item(), {n: 2 * p.grad for n, p in model.named_parameters() if p.grad is not None}


def work(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=2)
    found = {(name, *way): together(name, *way, rank) for name in MODELS for way in BACKENDS}
    if rank == 0:
        torch.save(found, str(folder / "found.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    child = os.fork()
    work(Path(sys.argv[1]).resolve(), rank=int(child == 0))
    if child != 0:
        _, status = os.waitpid(child, 0)
        sys.exit(int(status != 0))
