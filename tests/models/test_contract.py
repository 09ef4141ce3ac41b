"""What every model of this package promises, whatever its architecture."""

import copy
import math

import pytest
import torch
from fairseq import options
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, build_model
from omegaconf import OmegaConf
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import output_alpha_of
from fairseq_entmax.modules.output_weights import features_for_scores
from tests.builders import TINY_LSTM, TINY_TRANSFORMER, Task, arguments, batch, build, scripted
from tests.builders import sharpen as sharpened

MODELS = ["transformer_entmax", "lstm_entmax"]
ARCHS = [arch for arch, model in ARCH_MODEL_NAME_REGISTRY.items() if model in MODELS]
TINY = ["transformer_entmax_tiny", "lstm_entmax"]
ALL_ONE = {"output_alpha": 1.0, "attention_alpha": 1.0}
ALPHA_FLAGS = [
    "output_alpha",
    "attention_alpha",
    "encoder_attention_alpha",
    "decoder_attention_alpha",
    "cross_attention_alpha",
]

over_archs = pytest.mark.parametrize("arch", ARCHS)
over_tiny = pytest.mark.parametrize("arch", TINY)


def twin(arch):
    return arch.replace("_entmax", "")


def flags_of(arch):
    """Those that change something: an LSTM attends across only."""
    within = ("encoder_attention_alpha", "decoder_attention_alpha")
    return [flag for flag in ALPHA_FLAGS if "lstm" not in arch or flag not in within]


def probs_of(model):
    with torch.no_grad():
        return model.get_normalized_probs(model(**batch()["net_input"]), log_probs=False)


# ---- architectures


def test_promised_archs_are_registered():
    promised = {
        "transformer_entmax",
        "transformer_entmax_tiny",
        "transformer_entmax_iwslt_de_en",
        "transformer_entmax_wmt_en_de",
        "transformer_entmax_wmt_en_de_big",
        "lstm_entmax",
        "lstm_entmax_wiseman_iwslt_de_en",
        "lstm_entmax_luong_wmt_en_de",
    }
    assert promised <= set(ARCHS)


@over_archs
def test_arch_has_its_twins_settings(arch):
    ours, stock = vars(arguments(arch)), vars(arguments(twin(arch)))
    added = {name: ours.pop(name) for name in set(ours) - set(stock)}
    stock["arch"] = arch
    assert ours == stock
    expected = {**dict.fromkeys(flags_of(arch), 1.5), "learn_attention_alpha": False}
    if "lstm" in arch:
        expected.update(attention_score="general", criterion="entmax_loss")
    assert added == expected


@over_archs
def test_arch_keeps_what_is_given(arch):
    args = arguments(arch, output_alpha=1.0, attention_alpha=1.25, cross_attention_alpha=2.0)
    given = dict(zip(ALPHA_FLAGS, [1.0, 1.25, 1.25, 1.25, 2.0]))
    flags = flags_of(arch)
    assert [getattr(args, flag) for flag in flags] == [given[flag] for flag in flags]
    assert arguments(arch, dropout=0.77).dropout == 0.77


@over_archs
def test_arch_builds_with_the_stock_parameters(arch):
    # the meta device has shapes but no numbers: big architectures build at once
    with torch.device("meta"):
        ours = build_model(arguments(arch, criterion="entmax_loss"), Task())
        stock = build_model(arguments(twin(arch), criterion="cross_entropy"), Task())
    shapes = [(name, p.shape) for name, p in ours.state_dict().items()]
    assert shapes == [(name, p.shape) for name, p in stock.state_dict().items()]


# ---- the stock twin


@over_tiny
def test_alphas_of_one_are_the_stock_model(arch):
    ours, stock = build(arch, **ALL_ONE), build(twin(arch))
    for name, parameter in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], parameter), name
    assert torch.equal(probs_of(ours), probs_of(stock))
    ours.train()
    stock.train()
    inputs = batch()["net_input"]
    assert torch.equal(ours(**inputs)[0], stock(**inputs)[0])


@over_tiny
def test_parameters_are_drawn_as_in_stock(arch):
    ours, stock = build(arch, output_alpha=1.0), build(twin(arch))
    sparse = build(arch).state_dict()
    for name, parameter in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], parameter), name
        if name != "decoder.layers.1.final_layer_norm.weight":  # features of norm 1, its own test
            assert torch.equal(sparse[name], parameter), name


@over_tiny
def test_stock_checkpoint_loads(arch):
    stock = sharpened(build(twin(arch), seed=8))
    for flags in (ALL_ONE, {"output_alpha": 2.0, "attention_alpha": 1.0}):
        ours = build(arch, **flags)
        ours.load_state_dict(stock.state_dict())
        inputs = batch()["net_input"]
        with torch.no_grad():
            scores = stock(**inputs)[0]
            assert torch.equal(ours(**inputs)[0], scores)
    assert_close(probs_of(ours).double(), reference.entmax(scores, 2.0), atol=2e-6, rtol=0)


# ---- flags


def from_command_line(arch, *flags):
    parser = options.get_training_parser("translation")
    return options.parse_args_and_arch(parser, ["data", "--arch", arch, *flags])


@over_tiny
def test_flags_on_the_command_line(arch):
    names = ["output_alpha", "attention_alpha", "cross_attention_alpha"]
    args = from_command_line(arch)
    assert [getattr(args, name) for name in names] == [1.5, 1.5, 1.5]
    args = from_command_line(arch, "--output-alpha", "1.25", "--attention-alpha", "2")
    assert [getattr(args, name) for name in names] == [1.25, 2.0, 2.0]
    args = from_command_line(arch, "--cross-attention-alpha", "1.75")
    assert [getattr(args, name) for name in names] == [1.5, 1.5, 1.75]


FLAGS_THAT_CHANGE = [
    (arch, flag, 1.25)
    for arch in TINY
    for flag in ALPHA_FLAGS
    if arch == TINY[0] or flag not in ("encoder_attention_alpha", "decoder_attention_alpha")
] + [("lstm_entmax", "attention_score", score) for score in ("dot", "mlp")]


@pytest.mark.parametrize(
    ("arch", "flag", "value"),
    FLAGS_THAT_CHANGE,
    ids=[f"{arch}-{flag}={value}" for arch, flag, value in FLAGS_THAT_CHANGE],
)
def test_flag_changes_the_output(arch, flag, value):
    changed = probs_of(sharpened(build(arch, **{flag: value})))
    assert not torch.allclose(changed, probs_of(sharpened(build(arch))), atol=1e-3)


@over_tiny
@pytest.mark.parametrize("flag", ALPHA_FLAGS)
@pytest.mark.parametrize("alpha", [0.9, 0.0, math.nan, math.inf, "1,5"])
def test_alpha_below_one_is_refused(arch, flag, alpha):
    # the message names the flag and repeats the value
    with pytest.raises(ValueError, match=rf"{flag.split('_')[0]}\S*.alpha.*got {alpha}"):
        build(arch, **{flag: alpha})


@pytest.mark.parametrize("flag", ALPHA_FLAGS)
@pytest.mark.parametrize("alpha", ["0.9", "inf", "nan", "1,5"])
def test_the_command_line_refuses_an_alpha_at_once(flag, alpha, capsys):
    option = "--" + flag.replace("_", "-")
    with pytest.raises(SystemExit) as ended:
        from_command_line("transformer_entmax_tiny", option, alpha)
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith(
        f"error: argument {option}: must be >= 1 and finite (1 is softmax, 2 is sparsemax), "
        f"got {alpha}"
    )


def test_numbers_of_a_yaml_file_may_be_strings():
    assert build("transformer_entmax_tiny", output_alpha="1.25").decoder.output_alpha == 1.25


@over_tiny
@pytest.mark.parametrize("criterion", ["cross_entropy", "label_smoothed_cross_entropy"])
def test_cross_entropy_with_a_sparse_output_is_refused(arch, criterion):
    with pytest.raises(ValueError, match=f"{criterion}.*--criterion entmax_loss"):
        build(arch, criterion=criterion)
    build(arch, criterion=criterion, output_alpha=1.0)


@over_tiny
def test_adaptive_loss_is_refused(arch):
    with pytest.raises(ValueError, match=r"--criterion adaptive_loss.*cannot be sparse"):
        build(arch, criterion="adaptive_loss")


# ---- decoding, features, embeddings


@pytest.mark.parametrize(
    ("arch", "flags"),
    [
        ("transformer_entmax_tiny", {}),
        ("transformer_entmax_tiny", {"decoder_normalize_before": True}),
        (
            "transformer_entmax_tiny",
            {"cross_self_attention": True, "no_cross_attention": True},
        ),
        ("lstm_entmax", {}),
        ("lstm_entmax", {"attention_score": "mlp"}),
        ("lstm_entmax", {"encoder_bidirectional": True}),
        ("lstm_entmax", {"decoder_attention": "0"}),
    ],
    ids=str,
)
def test_incremental_decoding_is_the_full_forward(arch, flags):
    model = sharpened(build(arch, **flags))
    inputs = batch()["net_input"]
    prev = inputs["prev_output_tokens"]
    with torch.no_grad():
        full, extra = model(**inputs)
        encoder_out = model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
        state = {}
        for t in range(prev.size(1)):
            step, step_extra = model.decoder(
                prev[:, : t + 1], encoder_out=encoder_out, incremental_state=state
            )
            assert step.size(1) == 1
            real = prev[:, t] != model.decoder.dictionary.pad()
            assert_close(step[real, 0], full[real, t], atol=1e-4, rtol=1e-4)
            if attention_of(extra) is not None:
                weights, expected = attention_of(step_extra)[real, 0], attention_of(extra)[real, t]
                assert_close(weights, expected, atol=1e-5, rtol=0)
                assert torch.equal(weights == 0, expected == 0)
    if attention_of(extra) is not None:
        # the longest sentence has no padding
        assert (attention_of(extra)[0] == 0).any()


def attention_of(extra):
    """(bsz, tgt_len, src_len), of the transformer's dictionary or the LSTM's plain tensor."""
    return extra["attn"][0] if isinstance(extra, dict) else extra


@over_tiny
def test_features_and_output_layer_are_the_forward(arch):
    model = build(arch)
    inputs = batch()["net_input"]
    scores, _ = model(**inputs)
    with features_for_scores(model.decoder) as asked:
        features, extra = model(**inputs)
    assert len(asked) == 1
    assert torch.equal(model(**inputs)[0], scores)  # as before
    assert features.shape[:2] == scores.shape[:2]
    assert features.shape[2] < scores.shape[2] == len(model.decoder.dictionary)
    assert torch.equal(model.decoder.output_layer(features), scores)
    assert attention_of(extra) is not None


@over_tiny
@pytest.mark.parametrize(
    "tie", ["share_decoder_input_output_embed", "share_all_embeddings"], ids=["decoder", "all"]
)
def test_tied_embeddings(arch, tie):
    model = build(arch, **{tie: True})
    decoder = model.decoder
    tied = decoder.embed_tokens.weight
    assert (model.encoder.embed_tokens.weight is tied) == (tie == "share_all_embeddings")
    inputs = batch()["net_input"]
    with features_for_scores(model.decoder):
        features, _ = model(**inputs)
    assert_close(model(**inputs)[0], features @ tied.t())
    for flags in (ALL_ONE, {}):
        stock = build(twin(arch), **{tie: True})
        assert list(build(arch, **{tie: True}, **flags).state_dict()) == list(stock.state_dict())


@over_tiny
def test_padding_does_not_change_a_sentence(arch):
    model = sharpened(build(arch))
    pad = model.decoder.dictionary.pad()
    inputs = batch()["net_input"]
    assert (inputs["src_tokens"][:, 0] == pad).any()
    assert (inputs["prev_output_tokens"][:, -1] == pad).any()
    with torch.no_grad():
        scores, extra = model(**inputs)
        for i, prev in enumerate(inputs["prev_output_tokens"]):
            source, prev = inputs["src_tokens"][i], prev[prev != pad]
            real = source[source != pad]
            alone, extra_alone = model(real[None], torch.tensor([len(real)]), prev[None])
            assert_close(scores[i, : len(prev)], alone[0], atol=1e-4, rtol=1e-4)
            weights = attention_of(extra)[i, : len(prev)]
            # the LSTM's encoder moves the padding to the right
            at_padding = encoder_padding(model, inputs)[i]
            assert weights[:, at_padding].eq(0).all()
            assert_close(weights[:, ~at_padding], attention_of(extra_alone)[0], atol=1e-5, rtol=0)


def encoder_padding(model, inputs):
    """(bsz, src_len), True at padding, in the order of the encoder's states."""
    out = model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
    return out["encoder_padding_mask"][0] if isinstance(out, dict) else out[3].t()


@over_tiny
def test_every_parameter_learns(arch):
    model = build(arch).train()  # in a sharpened one, attention to one word only has no slope
    scores, _ = model(**batch()["net_input"])
    scores.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # adding the same to all keys moves no score apart from another
        assert parameter.grad.abs().sum() > 0 or name.endswith("k_proj.bias"), name


@over_tiny
def test_copy_is_independent(arch):
    model = sharpened(build(arch))
    before = probs_of(model)
    copied = copy.deepcopy(model)
    assert torch.equal(probs_of(copied), before)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert torch.equal(probs_of(model), before)


@over_tiny
def test_fast_generation_changes_nothing(arch):
    model = sharpened(build(arch))
    before = probs_of(model)
    model.make_generation_fast_(beamable_mm_beam_size=None, need_attn=False)
    assert torch.equal(probs_of(model), before)


# ---- TorchScript, hydra


@over_tiny
@pytest.mark.parametrize("alpha", [1.0, 1.25, 1.5, 2.0], ids=lambda a: f"alpha={a}")
def test_script(arch, alpha):
    model = sharpened(build(arch, output_alpha=alpha, attention_alpha=alpha))
    loaded = scripted(model)
    inputs = batch()["net_input"]
    expected, extra = model(**inputs)
    got, scripted_extra = loaded(**inputs)
    # compiled kernels against plain torch: float32 rounds both, at the size of the largest score
    largest = expected.abs().max().item()
    assert_close(got, expected, atol=1e-5 * largest, rtol=1e-4)
    assert_close(attention_of(scripted_extra), attention_of(extra), atol=1e-5, rtol=0)
    assert torch.equal(attention_of(scripted_extra) == 0, attention_of(extra) == 0)


@pytest.mark.parametrize("alpha", [1.0, 1.25, 1.5, 2.0], ids=lambda a: f"alpha={a}")
@pytest.mark.parametrize("log_probs", [False, True], ids=["probs", "log_probs"])
def test_script_probs(alpha, log_probs):
    # stock exports the probabilities of its transformer only
    model = sharpened(build("transformer_entmax_tiny", output_alpha=alpha))
    loaded = scripted(model)
    with torch.no_grad():
        net_output = model(**batch()["net_input"])
        got = loaded.get_normalized_probs(net_output, log_probs)
        expected = model.get_normalized_probs(net_output, log_probs)
    assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert (expected == (-math.inf if log_probs else 0)).any() == (alpha > 1)


def hydra_config(arch, struct, **flags):
    cfg = OmegaConf.create({"_name": arch, **flags})
    OmegaConf.set_struct(cfg, struct)
    return cfg


@over_tiny
@pytest.mark.parametrize("struct", [False, True], ids=["open", "struct"])
def test_hydra_config_of_a_name_only(arch, struct):
    cfg = hydra_config(arch, struct)
    torch.manual_seed(3)
    model = build_model(cfg, Task()).eval()
    assert output_alpha_of(model) == 1.5
    assert cfg.output_alpha == cfg.cross_attention_alpha == 1.5  # saved with the checkpoint
    torch.manual_seed(3)
    from_namespace = build_model(arguments(arch, criterion="entmax_loss"), Task()).eval()
    assert torch.equal(probs_of(model), probs_of(from_namespace))


@over_tiny
@pytest.mark.parametrize("name", ["output_alfa", "atention_alpha", "cross_attention_alphas"])
def test_a_mistyped_setting_of_hydra_is_refused(arch, name):
    with pytest.raises(ValueError, match=rf"model\.{name} is no setting .*_alpha\?"):
        build_model(hydra_config(arch, False, **{name: 2.0}), Task())


@over_tiny
@pytest.mark.parametrize("struct", [False, True], ids=["open", "struct"])
def test_hydra_config_with_flags(arch, struct):
    tiny = TINY_LSTM if "lstm" in arch else TINY_TRANSFORMER
    flags = {"output_alpha": 1.25, "attention_alpha": 2.0, "cross_attention_alpha": 1.75, **tiny}
    torch.manual_seed(3)
    model = build_model(hydra_config(arch, struct, **flags), Task()).eval()
    assert torch.equal(probs_of(sharpened(model)), probs_of(sharpened(build(arch, **flags))))
    with pytest.raises(ValueError, match=r"attention-alpha .*got 0\.5"):
        build_model(hydra_config(arch, struct, cross_attention_alpha=0.5), Task())
