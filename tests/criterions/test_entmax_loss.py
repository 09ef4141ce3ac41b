"""The criterion: its loss is the oracle's, and what it logs can be counted by hand."""

import math

import pytest
import torch
from fairseq import criterions, options
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.distributed import ModuleProxyWrapper
from fairseq.logging import metrics
from torch import nn
from torch.testing import assert_close

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.functional import reference
from tests.builders import Task, batch, build, sharpen

ARCHS = ["transformer_entmax_tiny", "lstm_entmax"]
ALPHAS = [1.0, 1.25, 1.5, 2.0]

over_archs = pytest.mark.parametrize("arch", ARCHS)
over_alphas = pytest.mark.parametrize("alpha", ALPHAS, ids=[f"alpha={a}" for a in ALPHAS])

TASK = Task()
PAD = TASK.target_dictionary.pad()


def criterion(sentence_avg=False, **options):
    return EntmaxLossCriterion(TASK, sentence_avg, **options)


def sparse_model(alpha=1.5, arch=ARCHS[0]):
    """Some reference tokens lie outside the support of its output."""
    return sharpen(build(arch, task=TASK, output_alpha=alpha))


def by_hand(model, sample, alpha, label_smoothing=0.0, prefix=0):
    """What the criterion should return and log, from the oracle, in float64."""
    with torch.no_grad():
        scores = model(**sample["net_input"])[0][:, prefix:].double()
    target = sample["target"][:, prefix:]
    probs = reference.entmax(scores, alpha)
    counted = target != PAD
    gold = probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return {
        "loss": reference.entmax_loss(
            scores, target, alpha, ignore_index=PAD, label_smoothing=label_smoothing
        ).sum(),
        "support_size": (probs > 0).sum(-1)[counted].sum(),
        "gold_in_support": (gold > 0)[counted].sum(),
        "token_correct": (scores.argmax(-1) == target)[counted].sum(),
        "token_total": counted.sum(),
    }


def averages(*logging_outputs):
    with metrics.aggregate(new_root=True) as aggregated:
        EntmaxLossCriterion.reduce_metrics(list(logging_outputs))
    return aggregated.get_smoothed_values()


def assert_logged(log, expected):
    for name, value in expected.items():
        if name == "loss":
            assert_close(log[name].double(), value, atol=1e-4, rtol=1e-5)
        else:
            assert log[name] == value, name


# ---- loss and logging outputs


@over_alphas
@over_archs
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smoothed"])
def test_loss_and_counts(arch, alpha, label_smoothing):
    model, sample = sparse_model(alpha, arch), batch(TASK)
    loss, sample_size, log = criterion(label_smoothing=label_smoothing)(model, sample)
    expected = by_hand(model, sample, alpha, label_smoothing)
    assert_logged(log, expected)
    assert_close(loss, log["loss"])
    assert loss.requires_grad
    assert not log["loss"].requires_grad
    assert (expected["gold_in_support"] < expected["token_total"]) == (alpha > 1)
    assert sample_size == log["sample_size"] == log["ntokens"] == sample["ntokens"]
    assert log["token_total"] == sample["ntokens"]
    assert log["nsentences"] == 3
    assert "n_correct" not in log
    assert "total" not in log


def test_counts_move_with_alpha():
    sample = batch(TASK)
    supports = [criterion()(sparse_model(a), sample)[2]["support_size"].item() for a in ALPHAS]
    assert supports == sorted(supports, reverse=True)
    assert supports[0] == sample["ntokens"] * len(TASK.target_dictionary)
    assert supports[-1] < supports[1]


@pytest.mark.parametrize("sharp", [True, False], ids=["sharp", "flat"])
def test_correct_counts_the_best_word(sharp):
    # the best word of a fresh model has little probability
    model, sample = sparse_model() if sharp else build(ARCHS[1], task=TASK), batch(TASK)
    best = model(**sample["net_input"])[0].argmax(-1)
    padding = sample["target"] == PAD
    sample["target"] = torch.where(padding, sample["target"], best)
    log = criterion(report_accuracy=True)(model, sample)[2]
    assert log["token_correct"] == log["n_correct"] == log["token_total"] == log["total"]
    assert log["gold_in_support"] == log["token_total"]


@over_alphas
def test_ignore_prefix(alpha):
    model, sample = sparse_model(alpha), batch(TASK)
    _, sample_size, log = criterion(ignore_prefix_size=2)(model, sample)
    assert_logged(log, by_hand(model, sample, alpha, prefix=2))
    assert log["token_total"] == sample["ntokens"] - 2 * 3
    # as in stock, the ignored tokens stay in the divisor
    assert sample_size == sample["ntokens"]


@over_alphas
def test_prefix_longer_than_every_target(alpha):
    model, sample = sparse_model(alpha).train(), batch(TASK)
    loss, _, log = criterion(ignore_prefix_size=50)(model, sample)
    loss.backward()
    assert loss == 0
    assert log["token_total"] == log["support_size"] == log["gold_in_support"] == 0
    logged = averages(log)
    assert logged["loss"] == 0
    assert "support" not in logged


def test_sentence_avg():
    model, sample = sparse_model(), batch(TASK)
    loss, sample_size, log = criterion(sentence_avg=True)(model, sample)
    assert sample_size == log["sample_size"] == 3
    assert_close(loss, criterion()(model, sample)[0])
    assert averages(log)["loss"] == pytest.approx(loss.item() / 3 / math.log(2), abs=1e-3)


@over_alphas
def test_unreduced_loss(alpha):
    model, sample = sparse_model(alpha), batch(TASK)
    loss, _, log = criterion()(model, sample, reduce=False)
    with torch.no_grad():
        scores = model(**sample["net_input"])[0]
    expected = reference.entmax_loss(scores, sample["target"], alpha, ignore_index=PAD)
    assert loss.shape == (sample["target"].numel(),)
    assert_close(loss.double(), expected.flatten(), atol=1e-4, rtol=1e-5)
    assert log["loss"].shape == loss.shape


@over_alphas
def test_targets_of_one_token(alpha):
    # sentences whose reference is empty: only EOS has to be predicted
    model, sample = sparse_model(alpha), batch(TASK)
    eos = TASK.target_dictionary.eos()
    sample["target"] = torch.full((3, 1), eos)
    sample["net_input"]["prev_output_tokens"] = torch.full((3, 1), eos)
    sample["ntokens"] = 3
    loss, _, log = criterion()(model, sample)
    assert loss.isfinite()
    assert_logged(log, by_hand(model, sample, alpha))


@over_alphas
def test_nothing_but_padding(alpha):
    # fairseq's dummy batch of a worker that has no data left
    model, sample = sparse_model(alpha).train(), batch(TASK)
    sample["target"] = torch.full_like(sample["target"], PAD)
    loss, _, log = criterion(label_smoothing=0.1)(model, sample)
    loss.backward()
    assert loss == 0
    assert log["token_total"] == log["support_size"] == log["token_correct"] == 0
    assert all(p.grad is None or p.grad.eq(0).all() for p in model.parameters())


# ---- reduce_metrics


@over_alphas
def test_reduced_metrics(alpha):
    model, sample = sparse_model(alpha), batch(TASK)
    log = criterion()(model, sample)[2]
    logged, expected = averages(log), by_hand(model, sample, alpha)
    n_tokens = sample["ntokens"]
    in_bits = expected["loss"].item() / n_tokens / math.log(2)
    assert logged["loss"] == pytest.approx(in_bits, abs=6e-4)
    assert logged["support"] == pytest.approx(expected["support_size"].item() / n_tokens, abs=6e-3)
    gold = expected["gold_in_support"].item() / n_tokens
    assert logged["gold_in_support"] == pytest.approx(gold, abs=6e-5)
    correct = expected["token_correct"].item() / n_tokens
    assert logged["token_accuracy"] == pytest.approx(correct, abs=6e-5)
    assert "accuracy" not in logged


def halves(sample):
    """The same sentences as two batches of different sizes."""
    for rows in (slice(0, 1), slice(1, None)):
        target = sample["target"][rows]
        net_input = {name: value[rows] for name, value in sample["net_input"].items()}
        longest = int(net_input["src_lengths"].max())
        net_input["src_tokens"] = net_input["src_tokens"][:, -longest:]
        ntokens = (target != PAD).sum().item()
        yield {"target": target, "ntokens": ntokens, "net_input": net_input}


@over_archs
def test_half_batches_add_up(arch):
    model, sample = sparse_model(arch=arch), batch(TASK)
    whole = criterion(report_accuracy=True)
    log = whole(model, sample)[2]
    logs = [whole(model, half)[2] for half in halves(sample)]
    assert EntmaxLossCriterion.logging_outputs_can_be_summed()
    for name in log:
        assert_close(
            torch.as_tensor(sum(part[name] for part in logs)),
            torch.as_tensor(log[name]),
            msg=name,
        )
    # as from one worker that added up, and as from two workers
    summed = {name: sum(part[name] for part in logs) for name in log}
    for got in (averages(summed), averages(*logs)):
        assert got == pytest.approx(averages(log), rel=1e-5, abs=1e-3)


def test_accuracy_is_stocks():
    sample = batch(TASK)
    stock_model = sharpen(build("transformer_tiny", task=TASK))
    stock = LabelSmoothedCrossEntropyCriterion(TASK, False, 0.0, report_accuracy=True)
    sample["target"][0, :4] = stock_model(**sample["net_input"])[0].argmax(-1)[0, :4]
    model = sharpen(build(ARCHS[0], task=TASK, output_alpha=1.0, attention_alpha=1.0))
    log = criterion(report_accuracy=True)(model, sample)[2]
    with metrics.aggregate(new_root=True) as aggregated:
        LabelSmoothedCrossEntropyCriterion.reduce_metrics([stock(stock_model, sample)[2]])
    expected = aggregated.get_smoothed_values()
    logged = averages(log)
    assert expected["accuracy"] > 0
    for name in ("accuracy", "n_correct", "total", "loss"):
        assert logged[name] == pytest.approx(expected[name]), name


# ---- alpha = 1 is cross-entropy


@over_archs
@pytest.mark.parametrize("reduce", [True, False], ids=["reduced", "unreduced"])
@pytest.mark.parametrize("sentence_avg", [False, True], ids=["tokens", "sentences"])
def test_alpha_one_is_cross_entropy(arch, reduce, sentence_avg):
    sample = batch(TASK)
    ours = build(arch, task=TASK, output_alpha=1.0, attention_alpha=1.0).train()
    stock = build(arch.replace("_entmax", ""), task=TASK).train()
    loss, sample_size, log = criterion(sentence_avg)(ours, sample, reduce)
    expected = CrossEntropyCriterion(TASK, sentence_avg)(stock, sample, reduce)
    assert_close(loss, expected[0])
    assert sample_size == expected[1]
    for name in ("ntokens", "nsentences", "sample_size"):
        assert log[name] == expected[2][name]
    loss.sum().backward()
    expected[0].sum().backward()
    for (name, p), stock_p in zip(ours.named_parameters(), stock.parameters()):
        assert_close(p.grad, stock_p.grad, atol=1e-5, rtol=1e-5, msg=name)


# ---- which models


@pytest.mark.parametrize("arch", ["transformer_tiny", "lstm"])
def test_softmax_model_is_refused(arch):
    model = build(arch, task=TASK)
    with pytest.raises(ValueError, match=f"got {type(model).__name__}") as error:
        criterion()(model, batch(TASK))
    for advice in (f"--arch {arch.split('_')[0]}_entmax", "_entmax at its end", "cross_entropy"):
        assert advice in str(error.value)


class Parallel(nn.Module):
    """Stands for a data-parallel wrapper, which hides the model's own methods."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


def test_model_in_data_parallel_wrappers():
    sample = batch(TASK)
    expected = criterion()(sparse_model(1.25), sample)[0]
    wrapped = ModuleProxyWrapper(Parallel(sparse_model(1.25)))
    assert_close(criterion()(wrapped, sample)[0], expected)
    with pytest.raises(ValueError, match="got TransformerModel,"):
        criterion()(ModuleProxyWrapper(Parallel(build("transformer_tiny", task=TASK))), sample)


# ---- registration and flags


def from_command_line(*flags):
    parser = options.get_training_parser("translation")
    given = ["data", "--arch", "lstm_entmax", "--criterion", "entmax_loss", *flags]
    args = options.parse_args_and_arch(parser, given)
    return criterions.build_criterion(args, TASK)


def test_flags_on_the_command_line():
    plain = from_command_line()
    assert isinstance(plain, EntmaxLossCriterion)
    assert (plain.label_smoothing, plain.ignore_prefix_size) == (0.0, 0)
    assert not plain.report_accuracy
    assert not plain.sentence_avg
    given = from_command_line(
        *("--label-smoothing", "0.2", "--ignore-prefix-size", "3"),
        *("--report-accuracy", "--sentence-avg"),
    )
    assert (given.label_smoothing, given.ignore_prefix_size) == (0.2, 3)
    assert given.report_accuracy
    assert given.sentence_avg


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, math.nan])
def test_label_smoothing_out_of_range_is_refused(label_smoothing):
    with pytest.raises(ValueError, match=r"--label-smoothing must lie in \[0, 1\), got"):
        criterion(label_smoothing=label_smoothing)


# ---- it trains


@pytest.mark.parametrize("alpha", [1.5, 2.0], ids=["alpha=1.5", "alpha=2.0"])
@over_archs
def test_twenty_steps_lower_the_loss(arch, alpha):
    model = build(arch, task=TASK, output_alpha=alpha).train()
    sample = batch(TASK, lengths=(4, 4, 4, 4))
    # copying: the target is the source
    source = sample["net_input"]["src_tokens"]
    sample["target"] = source
    sample["net_input"]["prev_output_tokens"] = source.roll(1, dims=1)
    sample["ntokens"] = source.numel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    logs = []
    for _ in range(21):
        optimizer.zero_grad()
        loss, sample_size, log = criterion()(model, sample)
        (loss / sample_size).backward()
        optimizer.step()
        logs.append(log)
    assert logs[-1]["loss"] < 0.7 * logs[0]["loss"]
    assert logs[-1]["support_size"] < 0.6 * logs[0]["support_size"]
    assert logs[-1]["gold_in_support"] == sample["ntokens"]
    assert logs[-1]["token_correct"] > logs[0]["token_correct"]


# ---- temperature, share of cross-entropy


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_the_loss_is_of_scores_at_the_output_s_temperature(fused):
    model = sharpen(build(ARCHS[0], task=TASK, output_temperature=3.0)).train()
    sample = batch(TASK)
    loss = criterion(fused_output=fused)(model, sample)[0]
    scores = model(**sample["net_input"])[0].detach().double() / 3
    expected = reference.entmax_loss(scores, sample["target"], 1.5, ignore_index=PAD).sum()
    assert_close(loss.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("fused", ["auto", "off"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smoothed"])
@pytest.mark.parametrize(("update", "share"), [(0, 1.0), (5, 0.5), (10, 0.0)])
def test_a_share_of_cross_entropy_fades(update, share, label_smoothing, fused):
    model = sharpen(build(ARCHS[0], task=TASK, output_temperature=3.0)).train()
    model.set_num_updates(update)
    sample = batch(TASK)
    options = {"label_smoothing": label_smoothing, "ignore_index": PAD}
    mixed = criterion(fused_output=fused, label_smoothing=label_smoothing, softmax_share="1:0:0:10")
    loss = mixed(model, sample)[0]
    scores = model(**sample["net_input"])[0].detach().double()
    sparse = reference.entmax_loss(scores / 3, sample["target"], 1.5, **options).sum()
    soft = reference.entmax_loss(scores, sample["target"], 1.0, **options).sum()
    expected = (1 - share) * sparse + share * soft / 3
    assert_close(loss.double(), expected, atol=1e-4, rtol=1e-5)
    loss.backward()
    unused = ~torch.isin(torch.arange(len(TASK.target_dictionary)), sample["target"])
    moved = model.decoder.output_projection.weight.grad[unused].abs().amax(1) > 0
    assert moved.all() == (share > 0 or label_smoothing > 0)


def test_validation_has_no_share_of_cross_entropy():
    model, sample = sparse_model(), batch(TASK)
    loss, plain = (criterion(softmax_share=s)(model, sample)[0] for s in ("0.5", "0"))
    assert loss == plain


def test_a_bad_share_is_refused():
    with pytest.raises(ValueError, match="--softmax-share must be a share"):
        criterion(softmax_share="2")
