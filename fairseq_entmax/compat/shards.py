"""Parts of a data set, decoded by several processes."""

import logging
import sys
from typing import Any, List

from fairseq_cli import generate

from .repairs import repair
from .wrapping import words_of, wrap

logger = logging.getLogger(__name__)


def _modules() -> List[Any]:
    """fairseq-generate, also where it is run as a script."""
    main = sys.modules.get("__main__")
    same = main is not None and getattr(main, "__file__", None) == generate.__file__
    return [generate, main] if same else [generate]


def _ignores_shards() -> bool:
    return any("shard_id" not in words_of(m._main, keywords=False) for m in _modules())


@repair(_ignores_shards)
def split_generation() -> None:
    """Let ``fairseq-generate --num-shards 4 --shard-id 1`` decode the second of four parts.

    The last line of its output is then ``Shard 1 of 4`` with tabs.

    Fault: generate reads ``--distributed-world-size`` and ``--distributed-rank`` only, so that
    every shard decodes everything; with these, a shard without a batch is a ZeroDivisionError.
    Versions: every fairseq. Test: tests/cli/test_shards.py::test_*.
    """

    def _main(original: Any, cfg: Any, output_file: Any) -> Any:
        shards, shard = cfg.dataset.num_shards, cfg.dataset.shard_id
        distributed = cfg.distributed_training
        if not 0 <= shard < shards:
            raise ValueError(
                f"--shard-id {shard} with --num-shards {shards}: the shards are numbered from 0 "
                f"to {shards - 1}"
            )
        if shards > 1:
            if distributed.distributed_world_size > 1:
                raise ValueError(
                    f"--num-shards {shards} and --distributed-world-size "
                    f"{distributed.distributed_world_size}: give one of them"
                )
            distributed.distributed_world_size, distributed.distributed_rank = shards, shard
        try:
            score = original(cfg, output_file)
        except ZeroDivisionError as error:  # sentences per second
            if shards == 1 or not _answered_nothing(error):
                raise
            logger.warning("shard %d of %d is empty: there are fewer batches", shard, shards)
            score = None
        n, k = distributed.distributed_world_size, distributed.distributed_rank
        if n > 1:  # fairseq-entmax merge looks for it
            print(f"Shard\t{k}\tof\t{n}", file=output_file)
        return score

    for module in _modules():
        wrap(module, "_main", _main)


def _answered_nothing(error: Exception) -> bool:
    """Whether fairseq-generate had counted no sentence when it failed."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_locals.get("num_sentences") == 0:
            return True
        trace = trace.tb_next
    return False
