"""The criterions of supervised attention and of masked words, against fairseq's and by hand."""

from argparse import Namespace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy_with_alignment import (
    LabelSmoothedCrossEntropyCriterionWithAlignment,
)
from fairseq.criterions.masked_lm import MaskedLmConfig, MaskedLmLoss
from fairseq.models import build_model
from torch.testing import assert_close

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.criterions.entmax_loss_with_alignment import EntmaxLossWithAlignmentCriterion
from fairseq_entmax.criterions.masked_entmax_loss import MaskedEntmaxLossCriterion
from fairseq_entmax.functional import reference
from fairseq_entmax.modules import EntmaxMultiheadAttention
from tests.builders import TINY_TRANSFORMER, Task, batch, build, sharpen

TASK = Task()
ALIGN = {"alignment_layer": 1, "encoder_layers": 2, "decoder_layers": 2, "alignment_heads": 1}
ALIGN.update(encoder_attention_heads=2, decoder_attention_heads=2)


def aligned_batch():
    """Two words of the first and third target stand for words of their sources."""
    sample = batch(TASK)
    tgt_len, src_len = sample["target"].size(1), sample["net_input"]["src_tokens"].size(1)
    last = src_len - 2  # sources are padded on the left
    pairs = [(last, 0), (last - 1, 0), (last, 2 * tgt_len + 1)]
    sample["alignments"] = torch.tensor(pairs)
    sample["align_weights"] = torch.tensor([0.5, 0.5, 1.0])
    return sample


def aligned_model(**flags):
    arch = "transformer_align_entmax" if "attention_alpha" in flags else "transformer_align"
    return sharpen(build(arch, task=TASK, **{**ALIGN, **flags}))


def test_alignment_at_alpha_one_is_fairseqs():
    sample = aligned_batch()
    stock = LabelSmoothedCrossEntropyCriterionWithAlignment(TASK, False, 0.0, 0.05)
    expected, _, logged = stock(aligned_model(), sample)
    ours = EntmaxLossWithAlignmentCriterion(TASK, False)
    model = aligned_model(output_alpha=1.0, attention_alpha=1.0)
    loss, _, ours_logged = ours(model, sample)
    assert_close(loss, expected)
    assert_close(ours_logged["alignment_loss"].item(), logged["alignment_loss"])


@pytest.mark.parametrize("heads", [1, 2])
def test_alignment_loss_is_the_fenchel_young_loss_of_the_heads(heads):
    sample = aligned_batch()
    model = aligned_model(output_alpha=1.5, attention_alpha=1.5, alignment_heads=heads)
    attention = model.decoder.layers[1].encoder_attn
    criterion = EntmaxLossWithAlignmentCriterion(TASK, False, alignment_lambda=2.0)
    loss, _, logged = criterion(model, sample)
    scores = criterion._scores.detach().double()
    bsz, tgt_len = sample["target"].shape
    by_head = scores.view(bsz, 2, tgt_len, -1)
    expected = sum(
        weight * reference.entmax_loss(by_head[t // tgt_len, h, t % tgt_len], torch.tensor(j), 1.5)
        for (j, t), weight in zip(sample["alignments"].tolist(), [0.5, 0.5, 1.0])
        for h in range(heads)
    )
    assert_close(logged["alignment_loss"].double(), expected / heads, atol=1e-4, rtol=1e-5)
    plain, _, _ = EntmaxLossCriterion(TASK, False)(model, sample)
    assert_close(loss, plain + 2.0 * logged["alignment_loss"])
    # an aligned word with p = 0 has a gradient
    assert (reference.entmax(by_head, 1.5)[0, 0, 0][sample["alignments"][:2, 0]] == 0).any()
    model.zero_grad()
    logged_loss = criterion.alignment_loss(model, sample)
    logged_loss.backward()
    assert attention.q_proj.weight.grad.abs().sum() > 0
    assert type(attention).sparse_weights is EntmaxMultiheadAttention.sparse_weights
    assert "sparse_weights" not in vars(attention)


def test_alignment_needs_a_model_that_has_it():
    model = build("transformer_entmax_tiny", task=TASK)
    with pytest.raises(ValueError, match=r"transformer_align_entmax.*got EntmaxTransformerModel"):
        EntmaxLossWithAlignmentCriterion(TASK, False)(model, aligned_batch())
    deep = aligned_model(output_alpha=1.5, attention_alpha=1.5, alignment_layer=4)
    with pytest.raises(ValueError, match="--alignment-layer 4: the decoder has the layers 0 to 1"):
        EntmaxLossWithAlignmentCriterion(TASK, False)(deep, aligned_batch())


class MaskedTask(Task):
    def __init__(self):
        super().__init__()
        self.dictionary = self.source_dictionary

    def max_positions(self):
        return 64


def masked_model(arch, **flags):
    torch.manual_seed(3)
    sizes = {name: size for name, size in TINY_TRANSFORMER.items() if "decoder" not in name}
    settings = {**sizes, "encoder_layers": 2, "encoder_attention_heads": 2, "max_positions": 64}
    return build_model(Namespace(arch=arch, **settings, **flags), MaskedTask()).eval()


def masked_batch():
    words = TASK.source_dictionary
    tokens = torch.randint(words.nspecial, len(words), (3, 6))
    target = torch.full_like(tokens, words.pad())
    target[0, 2], target[2, 4] = tokens[0, 2], tokens[2, 4]
    net_input = {"src_tokens": tokens, "src_lengths": torch.full((3,), 6)}
    return {"net_input": net_input, "target": target, "ntokens": 18, "nsentences": 3}


def test_masked_words_at_alpha_one_are_fairseqs():
    sample = masked_batch()
    stock = MaskedLmLoss(MaskedLmConfig(tpu=False), TASK)
    expected, size, _ = stock(masked_model("roberta_base"), sample)
    model = masked_model("roberta_base_entmax", output_alpha=1.0, attention_alpha=1.0)
    loss, our_size, _ = MaskedEntmaxLossCriterion(TASK)(model, sample)
    assert our_size == int(size) == 2
    assert_close(loss, expected)


def test_masked_words_by_hand():
    sample = masked_batch()
    model = masked_model("roberta_base_entmax", output_alpha=2.0)
    with torch.no_grad():
        model.encoder.lm_head.weight.mul_(200)
    loss, _, logged = MaskedEntmaxLossCriterion(TASK)(model, sample)
    scores = model(**sample["net_input"])[0].detach()
    places = sample["target"] != TASK.source_dictionary.pad()
    p = reference.entmax(scores[places], 2.0)
    expected = reference.entmax_loss(scores[places], sample["target"][places], 2.0).sum()
    assert_close(loss.double(), expected, atol=1e-4, rtol=1e-5)
    assert logged["support_size"] == (p > 0).sum() < 2 * len(TASK.source_dictionary)
    divergence = reference.js_divergence(p, sample["target"][places]).sum()
    assert_close(logged["js"].double(), divergence, atol=1e-5, rtol=1e-5)


def test_masked_loss_needs_a_sparse_masked_model():
    for model in (masked_model("roberta_base"), build("transformer_entmax_tiny", task=TASK)):
        with pytest.raises(ValueError, match="--arch roberta_entmax_base"):
            MaskedEntmaxLossCriterion(TASK).output_alpha(model)


def test_masked_lm_criterion_is_refused_on_a_sparse_output():
    with pytest.raises(ValueError, match=r"masked_lm.*--criterion masked_entmax_loss"):
        masked_model("roberta_base_entmax", criterion="masked_lm")
