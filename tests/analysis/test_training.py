"""Logs as fairseq writes them, and events as TensorBoard does."""

import pytest

from fairseq_entmax.analysis.training import learned_alphas_of, read_training

JSON = """
2026-01-01 00:00:00 | INFO | train_inner | {"epoch": 1, "support": "9.5", "num_updates": "5"}
2026-01-01 00:00:00 | INFO | valid | {"epoch": 1, "valid_loss": "1.5", "valid_support": "4", "valid_alpha.decoder.layers.0.encoder_attn.1": "1.4", "valid_num_updates": "10"}
2026-01-01 00:00:00 | INFO | train | {"epoch": 1, "train_support": "6.25", "train_num_updates": "10"}
2026-01-01 00:00:00 | INFO | valid | {"epoch": 2, "valid_supp
"""  # noqa: E501
COLONS = 'INFO:valid:{"epoch": 1, "valid_support": "4", "valid_num_updates": "10"}\n'
HYDRA = '[2026-01-01 00:00:00,1][valid][INFO] - {"valid_support": "4", "valid_num_updates": "10"}\n'
PLAIN = (
    "2026-01-01 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 1.5 | support 4 "
    "| num_updates 10 | best_loss 1.5\n"
    "2026-01-01 | INFO | train_inner | epoch 001:     50 / 375 loss=4.3, support=9.5, "
    "num_updates=5, lr=0.001\n"
)


def read(tmp_path, text):
    path = tmp_path / "train.log"
    path.write_text(text, encoding="utf-8")
    return read_training([path])


@pytest.mark.parametrize(
    "text", [JSON, COLONS, HYDRA, PLAIN], ids=["json", "colons", "hydra", "plain"]
)
def test_every_format_of_logs(tmp_path, text):
    assert read(tmp_path, text)["valid"]["support"] == [(10, 4.0)]


@pytest.mark.parametrize("text", [JSON, PLAIN], ids=["json", "plain"])
def test_numbers_within_an_epoch(tmp_path, text):
    assert read(tmp_path, text)["train_inner"]["support"] == [(5, 9.5)]


def test_learned_alphas(tmp_path):
    found = learned_alphas_of(read(tmp_path, JSON))
    assert found == {"decoder.layers.0.encoder_attn.1": [(10, 1.4)]}


def test_a_resumed_training_counts_once(tmp_path):
    again = COLONS.replace('"4"', '"3"')
    assert read(tmp_path, COLONS + again)["valid"]["support"] == [(10, 3.0)]


def test_events(tmp_path):
    writer = pytest.importorskip("tensorboardX").SummaryWriter(str(tmp_path / "valid"))
    for update, support in ((10, 4.0), (20, 3.5)):
        writer.add_scalar("support", support, update)
    writer.close()
    (file,) = (tmp_path / "valid").iterdir()
    assert read_training([tmp_path])["valid"]["support"] == [(10, 4.0), (20, 3.5)]
    file.write_bytes(file.read_bytes()[:-7])  # killed while it wrote
    assert read_training([tmp_path])["valid"]["support"] == [(10, 4.0)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing", None, "there is no log"),
        ("empty.log", "nothing\n", "no numbers of a fairseq training"),
    ],
)
def test_what_is_no_log_is_said(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_training([tmp_path / name])
