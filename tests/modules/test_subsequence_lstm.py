"""The LSTM over some positions of a line."""

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.modules.subsequence_lstm import SubsequenceLSTM
from tests.pretend_device import PretendDevice, to_device

MASK = torch.tensor(
    [[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool
)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_reads_as_if_the_others_were_not_there(num_layers):
    torch.manual_seed(0)
    module = SubsequenceLSTM(3, 4, num_layers, dropout=0.5).eval()
    x = torch.randn(*MASK.shape, 3)
    states, hidden, cell = module(x, MASK)
    for row, mask in enumerate(MASK):
        assert not states[row, ~mask].any()
        if mask.any():
            expected, finals = module.lstm(x[row : row + 1, mask])
            assert_close(states[row, mask], expected[0])
            for got, final in zip((hidden, cell), finals):  # forward beside backward
                by_layer = final[:, 0].reshape(num_layers, 2 * 4)
                assert_close(got[:, row], by_layer)
        else:
            assert not hidden[:, row].any() and not cell[:, row].any()


def test_no_gradient_reaches_what_is_not_read():
    module = SubsequenceLSTM(3, 4)
    x = torch.randn(*MASK.shape, 3, requires_grad=True)
    module(x, MASK)[0].square().sum().backward()
    assert torch.equal(x.grad.abs().sum(dim=2) > 0, MASK)


def test_dropout_is_between_layers_only():
    assert SubsequenceLSTM(3, 4, 1, dropout=0.5).lstm.dropout == 0
    assert SubsequenceLSTM(3, 4, 2, dropout=0.5).lstm.dropout == 0.5


def test_on_a_device_it_waits_once_for_the_lengths(monkeypatch):
    """Until torch packs them, which the pretended device cannot."""

    class Packed(Exception):
        pass

    def pack(read, lengths, **_):
        raise Packed(tuple(read.shape), lengths.tolist())

    monkeypatch.setattr(torch.nn.utils.rnn, "pack_padded_sequence", pack)
    with PretendDevice() as pretended, pytest.raises(Packed) as packed:
        SubsequenceLSTM(3, 4)(to_device(torch.randn(*MASK.shape, 3)), to_device(MASK))
    assert packed.value.args == ((4, 5, 3), [3, 1, 5, 1])
    assert pretended.waits == {"to cpu": 1}
