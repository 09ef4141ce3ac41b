"""Processes under gloo that hold parts of a vocabulary; a script: ``shard_processes.py FOLDER``.

``FOLDER/N.pt`` is what N processes found: for every case the loss, the gradients of x, W and b, and
the bytes that the first process sent.
"""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from fairseq_entmax.functional import VocabularyShards, vocabulary_parallel_entmax_loss

WORLDS = (2, 4)
PLAIN = {"alpha": 1.5, "reduction": "sum"}
# name: (rows, classes, size of the scores, options); near-equal scores have full support
CASES = {
    "1.5": (9, 203, 3.0, PLAIN),
    "2": (9, 203, 1.0, {**PLAIN, "alpha": 2.0}),
    "1.2": (9, 203, 1.0, {**PLAIN, "alpha": 1.2}),
    "smoothed": (9, 203, 3.0, {**PLAIN, "label_smoothing": 0.1, "ignore_index": 1}),
    "mean, 1.3": (9, 203, 3.0, {"alpha": 1.3, "label_smoothing": 0.2, "ignore_index": 200}),
    "full support": (3, 2500, 0.01, PLAIN),
    "full support, 1.3": (3, 2500, 0.01, {**PLAIN, "alpha": 1.3}),
    "both": (4, 2500, torch.tensor([[0.01], [4.0], [2.0], [0.02]]), PLAIN),
    "one row": (1, 203, 2.0, PLAIN),
    "many": (64, 20000, 2.0, PLAIN),
}


def problem(name):
    """x, W, b, y and the options; class 5 is masked in some."""
    n, v, size, options = CASES[name]
    generator = torch.Generator().manual_seed(len(name))
    x = torch.randn(n, 8, generator=generator) * size / 8**0.5
    weight, bias = torch.randn(v, 8, generator=generator), torch.zeros(v)
    if name == "smoothed":
        bias = torch.randn(v, generator=generator)
        bias[5] = -torch.inf
    y = torch.randint(6, v, (n,), generator=generator)
    if "ignore_index" in options:
        y[2] = options["ignore_index"]
    return x, weight, bias, y, options


def bounds_of(v, rank, world):
    """The classes of a process: the shards differ in size."""
    cut = [v * r * (r + 1) // (world * (world + 1)) for r in range(world + 1)]
    return slice(cut[rank], cut[rank + 1])


def work(rank, world, folder):
    store = dist.FileStore(os.path.join(folder, f"store{world}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = {}
    for name in CASES:
        x, weight, bias, y, options = problem(name)
        own = bounds_of(len(weight), rank, world)
        x, w, b = (t.clone().requires_grad_() for t in (x, weight[own], bias[own]))
        shards = VocabularyShards(len(w))
        loss = vocabulary_parallel_entmax_loss(x, w, y, shards, bias=b, **options)
        loss.backward()
        parts = [None] * world
        dist.all_gather_object(parts, (w.grad, b.grad))
        grads = [torch.cat(part) for part in zip(*parts)]
        found[name] = (loss.detach(), x.grad, *grads, dict(shards.sent))
    if rank == world - 1:  # the last: the others must have come to the same
        torch.save(found, os.path.join(folder, f"{world}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    for world in WORLDS:
        processes.start_processes(work, (world, sys.argv[1]), world, start_method="fork")
