"""Every registered arch is accounted for: its twin equals it, or the reason why there is none."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import models as registry
from fairseq import options
from fairseq.modules import FairseqDropout
from omegaconf import OmegaConf

from fairseq_entmax.models.kinds import REFUSED
from fairseq_entmax.models.twins import SparseTwin
from fairseq_entmax.modules import EntmaxMultiheadAttention, EntmaxOutputMixin, output_alpha_of
from fairseq_entmax.modules.masked_output import masked_output_of
from fairseq_entmax.modules.sparsify import attention_places, decoders_of
from tests.builders import build
from tests.models.archs import AnyTask, build_arch, command_line

# models that cannot be built here, stock or sparse
NEEDS = {
    "wav2vec_ctc": "a checkpoint of wav2vec 2.0",
    "wav2vec_seq2seq": "a checkpoint of wav2vec 2.0",
    "wav2vec2_laser": "a checkpoint of wav2vec 2.0",
    "wav2vec_classification": "a checkpoint of wav2vec 2.0",
    "xm_transformer": "a checkpoint of wav2vec 2.0",
    "unity_xm_transformer": "a checkpoint of wav2vec 2.0",
    "hubert": "the label rates of its data",
    "hubert_ctc": "a checkpoint of HuBERT",
    "hubert_seq2seq": "a checkpoint of HuBERT",
    "multires_hubert": "the label rates of its data",
    "multires_hubert_ctc": "a checkpoint of HuBERT",
    "transformer_from_pretrained_xlm": "a checkpoint of XLM",
    "transformer_ulm": "the channels of task speech_unit_modeling",
    "speech_dlm": "the channels of task speech_dlm_task",
    "unity_conformer": "a configuration of its first decoder",
    "s2spect2_conformer": "a configuration of its first decoder",
}
STOCK = [
    arch
    for arch, model in registry.ARCH_MODEL_REGISTRY.items()
    if not issubclass(model, SparseTwin) and model.__module__.startswith("fairseq.")
]


def name_of(arch):
    return registry.ARCH_MODEL_NAME_REGISTRY[arch]


BUILT = [arch for arch in STOCK if name_of(arch) not in {**REFUSED, **NEEDS}]
ONE_OF_EACH = {name_of(arch): arch for arch in reversed(BUILT)}
PUBLISHED = [
    "transformer_entmax",
    "transformer_entmax_tiny",
    "transformer_entmax_iwslt_de_en",
    "transformer_entmax_wmt_en_de",
    "transformer_entmax_wmt_en_de_big",
    "lstm_entmax",
    "lstm_entmax_wiseman_iwslt_de_en",
    "lstm_entmax_luong_wmt_en_de",
    "two_headed_lstm_entmax",
    "two_headed_lstm_entmax_sigmorphon",
]
over_built = pytest.mark.parametrize("arch", BUILT)


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


# ---- registration


def test_the_tables_name_models_that_exist():
    assert {*REFUSED, *NEEDS} <= {name_of(arch) for arch in STOCK} | {
        "model_parallel_transformer_lm"
    }
    assert len(BUILT) >= 100


@pytest.mark.parametrize("arch", STOCK)
def test_every_arch_has_a_twin_or_a_reason(arch):
    if name_of(arch) in REFUSED:
        assert f"{arch}_entmax" not in registry.ARCH_MODEL_REGISTRY
    else:
        assert issubclass(registry.ARCH_MODEL_REGISTRY[f"{arch}_entmax"], SparseTwin)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_published_names_stay(arch):
    assert arch in registry.ARCH_MODEL_REGISTRY


def test_no_twin_has_a_twin():
    assert not [arch for arch in registry.ARCH_MODEL_REGISTRY if arch.count("_entmax") > 1]


def test_the_page_gives_the_reasons():
    """docs/recipes.md: every model without a sparse output, or without a twin, and why."""
    page = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
    tables = page.read_text(encoding="utf-8").split("## Attention only")[1].split("## No twin")
    attention_only, refused = (
        {
            model: why
            for models, why in re.findall(r"^\| (`.+`) \| (.+) \|$", table, re.M)
            for model in re.findall(r"`(\w+)`", models)
        }
        for table in tables
    )
    assert refused == REFUSED
    twins = {name_of(arch): registry.ARCH_MODEL_REGISTRY.get(f"{arch}_entmax") for arch in STOCK}
    expected = {name: twin.no_output for name, twin in twins.items() if twin and twin.no_output}
    assert attention_only == expected


# ---- what is built


@over_built
def test_twin_has_the_stock_parameters_and_sparse_parts(arch):
    stock = build_arch(arch)
    adaptive = any(getattr(d, "adaptive_softmax", None) is not None for d in decoders_of(stock))
    # a hierarchy of softmaxes stays what it is
    twin = build_arch(f"{arch}_entmax", **({"output_alpha": 1.0} if adaptive else {}))
    assert shapes(twin) == shapes(stock)
    cls = registry.ARCH_MODEL_REGISTRY[f"{arch}_entmax"]
    places = {place.where for place in attention_places(twin)}
    assert places <= set(cls.attentions)
    assert bool(places) == bool(cls.attentions)
    assert all(place.attention.alpha == 1.5 for place in attention_places(twin))
    if cls.no_output:
        assert not any(isinstance(d, EntmaxOutputMixin) for d in decoders_of(twin))
    elif masked_output_of(twin) is not None:
        assert masked_output_of(twin).output_alpha == 1.5
    else:
        assert output_alpha_of(twin) == (None if adaptive else 1.5)


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_twin_takes_the_stock_flags_and_those_of_its_parts(model):
    arch = ONE_OF_EACH[model]
    twin, stock = command_line(f"{arch}_entmax"), command_line(arch)
    added = set(vars(twin)) - set(vars(stock))
    cls = registry.ARCH_MODEL_REGISTRY[f"{arch}_entmax"]
    expected = set() if cls.no_output else {"output_alpha"}
    if cls.attentions:
        expected |= {"attention_alpha", "learn_attention_alpha"}
        expected |= {f"{where}_attention_alpha" for where in cls.attentions}
    if model == "lstm":
        expected.add("attention_score")
    assert added == expected
    kept = {name: value for name, value in vars(twin).items() if name not in added | {"arch"}}
    assert kept == {name: value for name, value in vars(stock).items() if name != "arch"}


def test_adaptive_softmax_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"adaptive-softmax-cutoff.*cannot be sparse.*stock arch"):
        build_arch("transformer_lm_wiki103_entmax")


def test_our_criterions_are_refused_where_there_are_no_words():
    with pytest.raises(
        ValueError, match=r"--criterion entmax_loss: a non-autoregressive.*nat_loss"
    ):
        build_arch("nonautoregressive_transformer_entmax", criterion="entmax_loss")


def test_hydra_keeps_the_criterion_elsewhere():
    """Nor is there one when a checkpoint is read: no criterion is not ours."""
    args = vars(command_line("nonautoregressive_transformer_entmax"))
    plain = {k: v for k, v in args.items() if isinstance(v, (str, int, float)) and k != "criterion"}
    cfg = OmegaConf.create({**plain, "_name": args["arch"]})
    with torch.device("meta"):
        model = registry.build_model(cfg, AnyTask(20, args))
    assert {place.attention.alpha for place in attention_places(model)} == {1.5}


@pytest.mark.parametrize("arch", ["s2ut_transformer_entmax", "transformer_entmax"])
def test_further_decoders_are_trained_by_fairseqs_criterion_alone(arch, monkeypatch):
    """CTC and other heads of --multitask-config-yaml: entmax_loss would leave them out."""
    monkeypatch.setattr(AnyTask, "multitask_tasks", {"ctc": None}, raising=False)
    with pytest.raises(ValueError, match=r"--criterion entmax_loss.*--multitask-config-yaml"):
        build_arch(arch)


# ---- archs of other user-dirs, and mistyped ones


def test_an_arch_registered_later_gets_a_twin():
    code = """
import fairseq_entmax
from fairseq.models import ARCH_MODEL_REGISTRY, register_model, register_model_architecture
from fairseq.models.lstm import LSTMModel, base_architecture

@register_model("theirs")
class Theirs(LSTMModel):
    pass

@register_model_architecture("theirs", "theirs_small")
def theirs_small(args):
    base_architecture(args)

assert ARCH_MODEL_REGISTRY["theirs_small_entmax"].stock is Theirs
assert ARCH_MODEL_REGISTRY["theirs_entmax_small"].attentions == ("encoder", "decoder", "cross")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("transformer_entmax_iwslt_deen", "transformer_entmax_iwslt_de_en"),
        ("bart_bse_entmax", "bart_base_entmax"),
        ("transformer_lm_megatron_entmax", "Megatron"),
    ],
)
def test_a_mistyped_arch_names_the_nearest(arch, said, capsys):
    parser = options.get_training_parser("translation")
    with pytest.raises(SystemExit):
        options.parse_args_and_arch(parser, ["data", "--arch", arch])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert arch in last and said in last
    assert len(last) < 400


def test_no_name_of_ours_is_hidden_by_an_attribute_of_fairseq():
    """`decoder.normalize = True` in fairseq once hid a method of the output's mix-in."""
    set_there = set()
    root = Path(registry.__file__).parent
    for path in [*root.rglob("*.py"), *(root.parent / "modules").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                set_there.add(node.attr)
    ours = (
        set(vars(EntmaxOutputMixin)) | set(vars(SparseTwin)) | set(vars(EntmaxMultiheadAttention))
    )
    ours = {name for name in ours if not name.startswith("__")} - {"forward"}
    assert "normalize" in set_there
    assert not ours & set_there


def test_dropout_is_known_by_the_names_of_stock():
    """`--retain-dropout-modules TransformerDecoder` names classes, as stock builds them."""

    def names(model):
        return [m.module_name for m in model.modules() if isinstance(m, FairseqDropout)]

    twin, stock = build("transformer_entmax_tiny"), build("transformer_tiny")
    assert names(twin) == names(stock)
    assert "TransformerDecoder" in names(twin)
