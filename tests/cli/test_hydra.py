"""fairseq-hydra-train with whole groups in YAML, then the stock command line."""

import json
import re

import torch

from . import commands, corpus

UPDATES = 150


def config(data, folder):
    """JSON is YAML; the plugin's groups are known once its user_dir is imported."""
    return {
        "common": {
            "user_dir": str(commands.REPO / "fairseq_entmax"),
            "cpu": True,
            "log_format": "json",
            "log_interval": 1,
        },
        "task": {"_name": "translation", "data": str(data)},
        "model": {"_name": "transformer_entmax_tiny", "dropout": 0.0, "attention_alpha": 2.0},
        "criterion": {"_name": "entmax_loss", "label_smoothing": 0.01},
        "optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)"},
        "lr_scheduler": {"_name": "polynomial_decay", "total_num_update": UPDATES},
        "optimization": {"lr": [0.005], "max_update": UPDATES},
        "dataset": {"batch_size": 16, "disable_validation": True},
        "checkpoint": {
            "save_dir": str(folder / "model"),
            "save_interval": 1000,
            "no_epoch_checkpoints": True,
        },
        "hydra": {"run": {"dir": str(folder / "run")}},
    }


def test_train_from_yaml_then_generate(data, tmp_path):
    (tmp_path / "tiny.yaml").write_text(json.dumps(config(data, tmp_path)), encoding="utf-8")
    commands.run(
        *("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "tiny"), cwd=tmp_path
    )
    log = (tmp_path / "run" / "hydra_train.log").read_text(encoding="utf-8")
    first, *_, last = map(json.loads, re.findall(r"\[train\]\[INFO\] - (\{.*\})$", log, re.M))
    assert last["train_num_updates"] == str(UPDATES)
    assert float(last["train_support"]) < float(first["train_support"])

    checkpoint = tmp_path / "model" / "checkpoint_last.pt"
    model = torch.load(str(checkpoint), map_location="cpu")["cfg"]["model"]
    assert (model["output_alpha"], model["cross_attention_alpha"]) == (1.5, 2.0)
    answers = commands.parse_generation(
        commands.run(
            *("fairseq-generate", data, *commands.USER_DIR, "--task", "translation", "--cpu"),
            *("--path", checkpoint, "--beam", 5),
        )
    )
    assert sorted(answers) == list(range(corpus.TEST))
    plurals = [plural for _, plural in corpus.noun_pairs()["test"]]
    assert sum(answers[i][0].text == plurals[i] for i in answers) > corpus.TEST // 2
