"""--learn-attention-alpha and unigram label smoothing on the command line: trained, logged, read
back when decoding.
"""

import pytest
import torch

from . import commands, corpus

FLAGS = ["--learn-attention-alpha", "--label-smoothing", 0.01, "--label-smoothing-prior", "unigram"]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    train = [
        *("fairseq-train", *commands.train_args(data, folder, *commands.ARCHS["transformer"])),
        *(*FLAGS, "--dropout", 0, "--max-update", 150, "--validate-interval-updates", 75),
        *("--validate-interval", 1000, "--lr-scheduler", "polynomial_decay"),
        *("--total-num-update", 150),
    ]
    decode = [
        *("fairseq-generate", data, *commands.USER_DIR, "--task", "translation", "--cpu"),
        *("--path", folder / "checkpoint_last.pt", "--beam", 5),
    ]
    done = commands.attempt_all({"train": train, "decode": decode}, folder / "logs")
    for name, (code, output) in done.items():
        assert code == 0, f"{name}: {output[-3000:]}"
    return folder, done["train"].output, done["decode"].output


def test_alphas_are_logged_and_saved(finished):
    folder, log, _ = finished
    checkpoint = torch.load(str(folder / "checkpoint_last.pt"), map_location="cpu")
    validations = commands.json_logs(log, "valid")
    assert len(validations) >= 2
    saved = {k: v for k, v in checkpoint["model"].items() if k.endswith("learned_alpha.scores")}
    assert len(saved) == 2 + 2 * 2
    for name, scores in saved.items():
        place = name[: -len(".learned_alpha.scores")]
        for head, alpha in enumerate((1 + torch.sigmoid(scores)).tolist()):
            logged = validations[-1][f"valid_alpha.{place}.{head}"]
            assert logged == pytest.approx(alpha, abs=2e-4)
    alphas = torch.cat([1 + torch.sigmoid(scores) for scores in saved.values()])
    assert alphas.std() > 1e-3  # they have moved apart


def test_decoding_uses_what_was_learned(finished):
    answers = commands.parse_generation(finished[2])
    plurals = [plural for _, plural in corpus.noun_pairs()["test"]]
    assert sum(answers[i][0].text == plurals[i] for i in answers) > corpus.TEST // 2
