"""Bytes that processes exchange for a vocabulary cut into shards, as a table.

    python scripts/vocabulary_traffic.py [--processes 2 4] [--classes 10000 32000] [--rows 256]

Random features and weights stand for a model: --gain 3 gives the few nonzero probabilities of a
trained one, 0.001 the full support of an untrained one. Counted is what one process hands to
torch.distributed, for each row, without the gradient of the features (4 d bytes in float32).
"""

import argparse
import os
import tempfile
from typing import Dict, List

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from fairseq_entmax.functional import VocabularyShards, entmax, vocabulary_parallel_entmax_loss

FEATURES = 64
HEADER = [
    "| processes | V | support | bytes a row: bounds, counts, losses | candidates, sums | "
    "of all scores |",
    "| ---: | ---: | ---: | ---: | ---: | ---: |",
]


def line(world: int, n_classes: int, n_rows: int, support: float, sent: Dict[str, int]) -> str:
    """A row of the table."""
    fixed = sum(sent[kind] for kind in ("bounds", "counts", "losses")) / n_rows
    found = (sent.get("candidates", 0) + sent.get("Newton", 0)) / n_rows
    share = (fixed + found) / (4 * n_classes / world)
    return f"| {world} | {n_classes:,} | {support:.0f} | {fixed:.0f} | {found:.0f} | {share:.3%} |"


def work(rank: int, world: int, folder: str, classes: List[int], n_rows: int, gain: float) -> None:
    torch.set_num_threads(1)
    for n_classes in classes:
        store = dist.FileStore(os.path.join(folder, f"{world}-{n_classes}"), world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n_rows, FEATURES, generator=generator)
        weight = torch.randn(n_classes, FEATURES, generator=generator) * gain / FEATURES**0.5
        y = torch.randint(n_classes, (n_rows,), generator=generator)
        own = torch.tensor_split(weight, world)[rank].clone().requires_grad_()
        shards = VocabularyShards(len(own))
        vocabulary_parallel_entmax_loss(x, own, y, shards).backward()
        if rank == 0:
            support = float((entmax(x @ weight.t(), 1.5) > 0).sum(1).float().mean())
            print(line(world, n_classes, n_rows, support, shards.sent), flush=True)
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], metavar="N")
    parser.add_argument("--classes", type=int, nargs="+", default=[10000, 32000], metavar="V")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--gain", type=float, default=3.0, help="of the weight (default: 3)")
    args = parser.parse_args()
    print("\n".join(HEADER), flush=True)
    for world in args.processes:
        with tempfile.TemporaryDirectory() as folder:
            settings = (world, folder, args.classes, args.rows, args.gain)
            processes.start_processes(work, settings, world, start_method="fork")


if __name__ == "__main__":
    main()
