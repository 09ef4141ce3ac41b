"""Sentences in pieces of words: sentencepiece, BLEU in training, and resuming from it."""

import pytest
import torch

from . import commands, corpus

VOCABULARY = 70
BLEU = [
    *("--eval-bleu", "--eval-bleu-args", '{"beam": 4, "max_len_b": 20}'),
    *("--eval-bleu-remove-bpe", "sentencepiece", "--eval-bleu-print-samples"),
    *("--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"),
]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The binarised sentences; train, valid and test are the same."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentences")
    pairs = corpus.sentence_pairs()
    plain = [sentence for pair in pairs for sentence in pair]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(plain),
        model_prefix=str(folder / "pieces"),
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    encoder = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    encoded = [tuple(" ".join(encoder.encode(s, out_type=str)) for s in pair) for pair in pairs]
    assert len(encoded[0][0].split()) > len(pairs[0][0].split()), "the pieces are whole words"
    corpus.write(folder, "text", encoded)
    text = folder / "text"
    commands.run(
        *("fairseq-preprocess", "--source-lang", "sg", "--target-lang", "pl"),
        *("--trainpref", text, "--validpref", text, "--testpref", text),
        *("--destdir", folder / "bin", "--joined-dictionary"),
    )
    return folder / "bin"


@pytest.fixture(scope="module")
def trained_with_bleu(pieces, tmp_path_factory):
    """Folder and log of a training that validates with BLEU every 25 epochs."""
    folder = tmp_path_factory.mktemp("sentences_model")
    log = train(pieces, folder, "--max-epoch", 75)
    return folder, log


def train(pieces, folder, *more):
    return commands.run(
        "fairseq-train",
        *commands.train_args(pieces, folder, *commands.ARCHS["transformer"], "--dropout", 0),
        *("--validate-interval", 25, "--save-interval", 25, *BLEU, *more),
    )


def test_bleu_rises_in_training(trained_with_bleu):
    _, log = trained_with_bleu
    bleu = [line["valid_bleu"] for line in commands.json_logs(log, "valid")]
    assert len(bleu) == 3
    assert bleu[-1] > 50
    assert bleu[-1] > bleu[0]


def test_resume_from_a_checkpoint_with_bleu(pieces, trained_with_bleu):
    folder, log = trained_with_bleu
    best = max(line["valid_bleu"] for line in commands.json_logs(log, "valid"))
    state = torch.load(str(folder / "checkpoint_last.pt"), map_location="cpu")
    assert state["extra_state"]["best"] == pytest.approx(best, abs=0.01)

    (before, *_), last = commands.json_logs(log, "train"), commands.json_logs(log, "train")[-1]
    resumed = train(pieces, folder, "--max-epoch", 100)
    (epoch, *_) = commands.json_logs(resumed, "train")
    assert epoch["epoch"] == last["epoch"] + 1
    assert epoch["train_loss"] < 0.5 * before["train_loss"]
    (valid,) = commands.json_logs(resumed, "valid")
    assert valid["valid_best_bleu"] >= best


def test_generate_joins_the_pieces(pieces, trained_with_bleu):
    folder, _ = trained_with_bleu
    output = commands.run(
        *("fairseq-generate", pieces, *commands.USER_DIR, "--task", "translation", "--cpu"),
        *("--path", folder / "checkpoint_best.pt", "--beam", 5, "--batch-size", 4),
        *("--remove-bpe=sentencepiece", "--scoring", "sacrebleu"),
    )
    english = [translation for _, translation in corpus.sentence_pairs()]
    answers = commands.parse_generation(output)
    assert sorted(answers) == list(range(len(english)))
    right = sum(answers[i][0].text == english[i] for i in answers)
    assert right > len(english) // 2
    references = dict(line.split("\t") for line in output.splitlines() if line.startswith("T-"))
    assert references == {f"T-{i}": sentence for i, sentence in enumerate(english)}
    assert "with beam=5: BLEU = " in output
