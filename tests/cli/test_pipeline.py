"""preprocess, train, resume, validate, generate: the way of every user."""

import shutil
import struct

import pytest

from . import commands, corpus

STATISTICS = ("loss", "support", "gold_in_support", "token_accuracy")

every_arch = pytest.mark.parametrize("arch", list(commands.ARCHS))


def tensorboard_tags(folder):
    """The names of all scalars in a folder of event files."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    tags = set()
    for path in folder.glob("events*"):
        records = path.read_bytes()
        while records:
            # length, its checksum, an event, its checksum
            (length,) = struct.unpack("<Q", records[:8])
            event = event_pb2.Event.FromString(records[12 : 12 + length])
            tags.update(value.tag for value in event.summary.value)
            records = records[16 + length :]
    return tags


@every_arch
def test_training_logs_its_statistics(trained, arch):
    log = (trained(arch) / "train.log").read_text(encoding="utf-8")
    first, *_, last = commands.json_logs(log, "train")
    assert last["train_loss"] < 0.5 * first["train_loss"]
    assert 1 <= last["train_support"] < 0.5 * first["train_support"]
    assert 0.9 < last["train_gold_in_support"] <= 1
    assert first["train_token_accuracy"] < 0.9 < last["train_token_accuracy"] <= 1


@every_arch
def test_tensorboard_holds_the_statistics(trained, arch):
    assert tensorboard_tags(trained(arch) / "tensorboard" / "train") >= set(STATISTICS)


@every_arch
def test_resume_validate_generate(trained, data, arch, tmp_path):
    shutil.copy(str(trained(arch) / "checkpoint_last.pt"), str(tmp_path))
    resumed = commands.run(
        "fairseq-train",
        *commands.train_args(data, tmp_path, *commands.ARCHS[arch]),
        *("--max-update", 203, "--lr", 1e-5, "--reset-lr-scheduler"),
    )
    updates = [line["num_updates"] for line in commands.json_logs(resumed, "train_inner")]
    assert updates == [201, 202, 203]

    (in_training,) = commands.json_logs(resumed, "valid")
    checkpoint = tmp_path / "checkpoint_last.pt"
    (alone,) = commands.json_logs(
        commands.run(
            *("fairseq-validate", data, *commands.USER_DIR, "--path", checkpoint, "--cpu"),
            *("--task", "translation", "--batch-size", 4, "--log-format", "json"),
        ),
        "valid",
    )
    for name in STATISTICS:
        assert alone[f"valid_{name}"] == pytest.approx(in_training[f"valid_{name}"], abs=2e-3)

    answers = commands.parse_generation(
        commands.run(
            *("fairseq-generate", data, *commands.USER_DIR, "--path", checkpoint, "--cpu"),
            *("--task", "translation", "--beam", 5),
        )
    )
    plurals = [plural for _, plural in corpus.noun_pairs()["test"]]
    assert sorted(answers) == list(range(corpus.TEST))
    assert all(len(hypotheses) == 1 for hypotheses in answers.values())
    right = sum(answers[i][0].text == plurals[i] for i in answers)
    assert right > corpus.TEST // 2
