"""``fairseq-generate --lm-path`` with a sparse language model, which knows a few plurals."""

import math
import re
import shutil

import pytest
import torch
from fairseq import checkpoint_utils

from . import commands

WEIGHT = 0.5
LM = [
    *("--task", "language_modeling", "--sample-break-mode", "eos", "--tokens-per-sample", 32),
    *("--arch", "transformer_lm_entmax", "--decoder-embed-dim", 32, "--decoder-layers", 1),
    *("--decoder-ffn-embed-dim", 32, "--decoder-attention-heads", 2, "--output-alpha", 2),
    *("--lr", 0.02, "--dropout", 0, "--max-update", 60, "--disable-validation"),
]


@pytest.fixture(scope="module")
def finished(data, trained, tmp_path_factory):
    """The folder with both checkpoints, and what was decoded: without it, weight 0, and WEIGHT."""
    folder = tmp_path_factory.mktemp("fusion")
    shutil.copytree(str(data), str(folder / "bin"))
    # with the language model's dictionary, and its data: the plurals of the validation set
    shutil.copy(str(data / "dict.pl.txt"), str(folder / "bin" / "dict.txt"))
    for end in ("bin", "idx"):
        shutil.copy(str(data / f"valid.sg-pl.pl.{end}"), str(folder / "bin" / f"train.{end}"))
        shutil.copy(str(data / f"test.sg-pl.pl.{end}"), str(folder / "bin" / f"test.{end}"))
    models = trained("transformer") / "checkpoint_last.pt", folder / "lm" / "checkpoint_last.pt"
    generate = [
        *("fairseq-generate", folder / "bin", *commands.USER_DIR, "--path", models[0], "--cpu"),
        *("--task", "translation", "--beam", 5, "--nbest", 5, "--gen-subset", "test"),
    ]
    lm_path = ["--lm-path", models[1], "--lm-weight"]
    jobs = {
        "lm": ["fairseq-train", *commands.train_args(folder / "bin", folder / "lm", *LM)],
        "words": [
            *("fairseq-eval_lm", folder / "bin", *commands.USER_DIR, "--path", models[1], "--cpu"),
            *("--sample-break-mode", "eos", "--output-word-probs"),
        ],
        "alone": generate,
        "zero": [*generate, *lm_path, 0],
        "fused": [*generate, *lm_path, WEIGHT],
        "negative": [*generate, *lm_path, -1],
    }
    return models, folder / "bin", commands.attempt_all(jobs, folder / "logs")


def hypotheses(jobs, name):
    assert jobs[name].code == 0, jobs[name].output[-3000:]
    return commands.parse_generation(jobs[name].output)


def test_weight_zero_decodes_as_without(finished):
    _, _, jobs = finished
    assert jobs["lm"].code == 0, jobs["lm"].output[-3000:]
    assert hypotheses(jobs, "zero") == hypotheses(jobs, "alone")


def test_impossible_words_are_counted(finished):
    _, _, jobs = finished
    assert jobs["words"].code == 0, jobs["words"].output[-3000:]
    output = jobs["words"].output
    said = re.search(
        r"Impossible words \(p = 0\): \S+ \((\d+) of (\d+)\), epsilon-.*: (\S+)", output
    )
    impossible, words = int(said[1]), int(said[2])
    printed = re.findall(r"\[(-inf|-?\d+\.\d{6})\]", output)
    assert len(printed) == words and printed.count("-inf") == impossible > 0
    nll = sum(-math.log((math.exp(float(x)) + 1e-6) / (1 + 1e-6 * 40)) for x in printed) / words
    assert float(said[3]) == pytest.approx(math.exp(nll), rel=1e-2)
    assert "Loss (base 2): inf, Perplexity: inf" in output and "Traceback" not in output


def test_a_negative_weight_is_refused(finished):
    _, _, jobs = finished
    assert jobs["negative"].code != 0
    assert "--lm-weight must be a number >= 0" in jobs["negative"].output


def test_scores_are_both_models_and_zeros_veto(finished):
    models, data, jobs = finished
    overrides = {"data": str(data)}
    (translation,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(models[0])], arg_overrides=overrides
    )
    (language,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(models[1])], arg_overrides=overrides
    )
    words = task.target_dictionary
    task.load_dataset("test")

    def log_probs(number, tokens):
        """log2 p and log2 q of each token of a hypothesis."""
        shifted = torch.tensor([[words.eos(), *tokens[:-1]]])
        source = task.dataset("test")[number]["source"][None]
        with torch.no_grad():
            scores = translation(source, torch.tensor([source.size(1)]), shifted)
            p = translation.get_normalized_probs(scores, log_probs=True)[0]
            q = language.get_normalized_probs(language(shifted), log_probs=True)[0]
        chosen = torch.tensor(tokens)[:, None]
        return [each.gather(1, chosen)[:, 0] / math.log(2) for each in (p, q)]

    translation.eval()
    language.eval()
    fused, alone = hypotheses(jobs, "fused"), hypotheses(jobs, "alone")
    n_alive = n_vetoed = 0
    for number, found in fused.items():
        texts = {hypothesis.text for hypothesis in found if hypothesis.score > -math.inf}
        for hypothesis in found:
            if hypothesis.text in texts:
                tokens = [*map(words.index, hypothesis.tokens), words.eos()]
                p, q = log_probs(number, tokens)
                expected = (p + WEIGHT * q).tolist()
                assert hypothesis.positional == pytest.approx(expected, abs=2e-3)
                n_alive += 1
        for hypothesis in alone[number]:
            tokens = [*map(words.index, hypothesis.tokens), words.eos()]
            if log_probs(number, tokens)[1].min() == -math.inf:
                assert hypothesis.text not in texts
                n_vetoed += 1
    assert n_alive > 0 and n_vetoed > 0
