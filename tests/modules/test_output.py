"""The output layer: entmax probabilities from any fairseq decoder."""

import math
import pickle
from argparse import Namespace

import pytest
import torch
from fairseq.models.fconv import FConvDecoder, FConvEncoder, FConvModel
from fairseq.models.lstm import LSTMDecoder
from fairseq.models.transformer import TransformerDecoderBase
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import (
    EntmaxOutputMixin,
    adopt,
    output_alpha_of,
    sparsify_output,
)
from fairseq_entmax.modules.output import check_output_args
from tests.builders import Task, batch, build

ARCHS = ["transformer_entmax_tiny", "lstm_entmax"]
STOCK = {"transformer_entmax_tiny": "transformer_tiny", "lstm_entmax": "lstm"}
ALPHAS = [1.25, 1.5, 2.0]
VOCABULARY = 24

over_archs = pytest.mark.parametrize("arch", ARCHS)
over_alphas = pytest.mark.parametrize("alpha", ALPHAS, ids=[f"alpha={a}" for a in ALPHAS])


def random_scores(dtype=torch.float32):
    return (3 * torch.randn(3, 5, VOCABULARY)).to(dtype)


def assert_sparse_probs(model, net_output, alpha):
    """Probabilities and log-probabilities of a model against the oracle."""
    with torch.no_grad():
        probs = model.get_normalized_probs(net_output, log_probs=False)
        log_probs = model.get_normalized_probs(net_output, log_probs=True)
    expected = reference.entmax(net_output[0], alpha)
    assert probs.dtype == log_probs.dtype == torch.float32
    assert_close(probs.double(), expected, atol=2e-6, rtol=0)
    assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]))
    assert (expected == 0).any(), "the scores are too close for the test to mean anything"
    assert torch.equal(probs == 0, expected == 0)
    assert torch.equal(log_probs == -math.inf, expected == 0)
    assert_close(log_probs.exp(), probs)


@over_alphas
@over_archs
def test_probs_are_the_oracles(arch, alpha):
    model = build(arch, output_alpha=alpha)
    assert_sparse_probs(model, (random_scores(), None), alpha)
    assert_sparse_probs(model.decoder, (random_scores(), None), alpha)


@over_archs
def test_probs_of_a_whole_model(arch):
    model = build(arch, output_alpha=1.5)
    net_output = model(**batch()["net_input"])
    assert_sparse_probs(model, (20 * net_output[0].detach(), net_output[1]), 1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@over_archs
def test_half_scores_give_float32_probs(arch, dtype):
    model = build(arch, output_alpha=1.5)
    assert_sparse_probs(model, (random_scores(dtype), None), 1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("log_probs", [False, True], ids=["probs", "log_probs"])
@over_archs
def test_alpha_one_is_stock(arch, log_probs, dtype):
    net_output = (random_scores(dtype), None)
    sparse = build(arch, output_alpha=1.0).get_normalized_probs(net_output, log_probs)
    stock = build(STOCK[arch]).get_normalized_probs(net_output, log_probs)
    assert sparse.dtype == stock.dtype
    assert torch.equal(sparse, stock)


@over_archs
def test_training_through_log_probs_is_refused(arch):
    model = build(arch, output_alpha=1.5).train()
    net_output = model(**batch()["net_input"])
    with pytest.raises(ValueError, match=r"output_alpha=1\.5.*--criterion entmax_loss"):
        model.get_normalized_probs(net_output, log_probs=True)


@over_archs
def test_log_probs_of_scores_with_a_graph(arch):
    # validation in a process that trains: the scores know their gradient, nobody asks for it
    model = build(arch, output_alpha=1.5)
    scores = random_scores().requires_grad_()
    assert_sparse_probs(model, (scores, None), 1.5)


@over_archs
def test_training_through_probs_is_possible(arch):
    model = build(arch, output_alpha=1.5).train()
    probs = model.get_normalized_probs(model(**batch()["net_input"]), log_probs=False)
    probs.square().sum().backward()
    assert model.decoder.embed_tokens.weight.grad.abs().sum() > 0


@over_archs
def test_training_through_log_probs_at_alpha_one(arch):
    model = build(arch, output_alpha=1.0).train()
    log_probs = model.get_normalized_probs(model(**batch()["net_input"]), log_probs=True)
    log_probs[..., 7].sum().backward()
    assert model.decoder.embed_tokens.weight.grad.abs().sum() > 0


# ---- sparsify_output


def fconv_model():
    task = Task()
    words = task.source_dictionary
    small = {"embed_dim": 12, "convolutions": ((12, 3),) * 2, "dropout": 0.0}
    encoder = FConvEncoder(words, **small)
    decoder = FConvDecoder(words, out_embed_dim=12, **small)
    encoder.num_attention_layers = 2
    return FConvModel(encoder, decoder).eval()


def stock_model(name):
    return fconv_model() if name == "fconv" else build(name)


@pytest.mark.parametrize(
    ("name", "decoder_class"),
    [
        ("fconv", FConvDecoder),
        ("transformer_tiny", TransformerDecoderBase),
        ("lstm", LSTMDecoder),
    ],
    ids=["fconv", "transformer", "lstm"],
)
def test_sparsify_output(name, decoder_class):
    model = stock_model(name)
    scores, extra = model(**batch()["net_input"])
    stock = model.decoder
    names = list(stock.state_dict())
    assert sparsify_output(stock, 1.5) is stock is model.decoder
    assert isinstance(model.decoder, decoder_class)
    assert isinstance(model.decoder, EntmaxOutputMixin)
    assert list(model.decoder.state_dict()) == names
    again, _ = model(**batch()["net_input"])
    assert torch.equal(again, scores)
    assert output_alpha_of(model) == 1.5
    assert_sparse_probs(model, (20 * scores.detach(), extra), 1.5)
    assert type(sparsify_output(stock_model(name).decoder, 2.0)) is type(stock)  # one for all
    kept = pickle.loads(pickle.dumps(model))
    assert_sparse_probs(kept, (20 * scores.detach(), extra), 1.5)
    assert torch.equal(kept(**batch()["net_input"])[0], scores)


def test_sparsify_output_again_changes_alpha():
    decoder = sparsify_output(build("transformer_tiny").decoder, 2.0)
    again = sparsify_output(decoder, 1.25)
    assert again is decoder
    assert_sparse_probs(again, (random_scores(), None), 1.25)


def test_sparsify_output_refuses_adaptive_softmax():
    model = build("transformer_tiny", adaptive_softmax_cutoff="8,16")
    with pytest.raises(ValueError, match=r"--adaptive-softmax-cutoff.*cannot be sparse"):
        sparsify_output(model.decoder, 1.5)


@pytest.mark.parametrize("alpha", [0.5, math.nan])
def test_sparsify_output_refuses_alpha_below_one(alpha):
    with pytest.raises(ValueError, match=f"--output-alpha must be >= 1.*got {alpha}"):
        sparsify_output(build("transformer_tiny").decoder, alpha)


# ---- check_output_args, output_alpha_of, adopt


@pytest.mark.parametrize("alpha", [0.99, 0.0, -2.0, math.nan])
def test_check_alpha(alpha):
    with pytest.raises(ValueError, match=f"--output-alpha must be >= 1.*got {alpha}"):
        check_output_args(Namespace(output_alpha=alpha))


def test_check_adaptive_loss():
    with pytest.raises(ValueError, match=r"--criterion adaptive_loss.*use the stock arch"):
        check_output_args(Namespace(output_alpha=1.5, criterion="adaptive_loss"))
    check_output_args(Namespace(output_alpha=1.0, criterion="adaptive_loss"))


CROSS_ENTROPIES = [
    "cross_entropy",
    "label_smoothed_cross_entropy",
    "label_smoothed_cross_entropy_with_ctc",
    "speech_to_unit",
]


@pytest.mark.parametrize("criterion", CROSS_ENTROPIES)
def test_check_cross_entropy(criterion):
    for given in (criterion, Namespace(_name=criterion)):  # hydra has it as a group
        with pytest.raises(ValueError, match=f"--criterion {criterion} .*--criterion entmax_loss"):
            check_output_args(Namespace(output_alpha=1.5, criterion=given))


@pytest.mark.parametrize("criterion", CROSS_ENTROPIES)
def test_cross_entropy_is_allowed_at_alpha_one(criterion):
    check_output_args(Namespace(output_alpha=1.0, criterion=criterion))


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 4.0])
def test_entmax_loss_is_allowed(alpha):
    check_output_args(Namespace(output_alpha=alpha, criterion="entmax_loss"))
    check_output_args(Namespace(output_alpha=alpha))


@over_archs
def test_output_alpha_of(arch):
    model = build(arch, output_alpha=1.25)
    assert output_alpha_of(model) == 1.25
    assert output_alpha_of(model.decoder) == 1.25
    assert output_alpha_of(build(STOCK[arch])) is None


def test_adopt_refuses_an_unrelated_class():
    with pytest.raises(TypeError, match="EntmaxOnly does not extend"):
        adopt(type("EntmaxOnly", (EntmaxOutputMixin,), {}), build("lstm").decoder)


def test_adopt_leaves_the_original_alone():
    stock = build("lstm").decoder
    twin = adopt(type("Twin", (LSTMDecoder,), {}), stock, need_attn=False)
    assert stock.need_attn
    assert not twin.need_attn
    twin.added = torch.nn.Linear(2, 2)
    twin.register_buffer("noted", torch.zeros(1))
    assert set(twin.state_dict()) - set(stock.state_dict()) == {
        "added.weight",
        "added.bias",
        "noted",
    }
