"""Shards of fairseq-generate: together they answer every line once."""

import pytest

from fairseq_entmax.data import shards

from . import commands


def answered(output):
    return sorted(commands.parse_generation(output))


@pytest.fixture(scope="module")
def outputs(data, trained, tmp_path_factory):
    """Shards of the test set, which has more batches than one can divide evenly."""
    generate = [
        *("fairseq-generate", data, *commands.USER_DIR, "--cpu", "--beam", 2, "--batch-size", 3),
        *("--path", trained("transformer") / "checkpoint_last.pt"),
    ]
    jobs = {"whole": generate}
    for n in (4, 200):
        for shard in {0, 1, 2, n - 1}:
            jobs[f"{shard} of {n}"] = [*generate, "--num-shards", n, "--shard-id", shard]
    jobs["distributed"] = [*generate, "--distributed-world-size", 4, "--distributed-rank", 1]
    jobs["outside"] = [*generate, "--num-shards", 4, "--shard-id", 4]
    jobs["both"] = [*jobs["distributed"], "--num-shards", 2, "--shard-id", 1]
    return commands.attempt_all(jobs, tmp_path_factory.mktemp("shards"))


def test_shards_together_are_every_line_once(outputs):
    whole = commands.parse_generation(outputs["whole"].output)
    shards = [outputs[f"{shard} of 4"] for shard in range(4)]
    assert [done.code for done in shards] == [0] * 4
    parts = [commands.parse_generation(done.output) for done in shards]
    assert all(parts)
    assert sorted(number for part in parts for number in part) == sorted(whole)
    for part in parts:
        for number, hypotheses in part.items():
            assert [h.text for h in hypotheses] == [h.text for h in whole[number]]


def test_merged_shards_are_what_one_process_prints(outputs):
    parts = [shards.read_shard(str(i), outputs[f"{i} of 4"].output.splitlines()) for i in range(4)]
    joined = "\n".join(line for lines in shards.merged(parts).values() for line in lines)
    whole = commands.parse_generation(outputs["whole"].output)
    assert commands.parse_generation(joined) == whole
    assert list(commands.parse_generation(joined)) == sorted(whole)
    with pytest.raises(ValueError, match="shard 3 is missing, of 4"):
        shards.merged(parts[:3])


def test_shard_is_that_of_the_distributed_flags(outputs):
    assert answered(outputs["1 of 4"].output) == answered(outputs["distributed"].output)


def test_more_shards_than_batches(outputs):
    assert outputs["199 of 200"].code == 0
    assert not answered(outputs["199 of 200"].output)
    assert "shard 199 of 200 is empty" in outputs["199 of 200"].output
    assert answered(outputs["0 of 200"].output)


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (
            "outside",
            "--shard-id 4 with --num-shards 4: the shards are numbered from 0 to 3",
        ),
        (
            "both",
            "--num-shards 2 and --distributed-world-size 4: give one of them",
        ),
    ],
)
def test_impossible_shards_are_refused(outputs, job, line):
    assert outputs[job].code == 2
    assert outputs[job].output.strip().splitlines()[-1] == f"fairseq-generate: error: {line}"
