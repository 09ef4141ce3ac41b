"""A bidirectional LSTM that reads some positions of a line and passes over the others."""

from typing import Tuple

import torch
from fairseq.models.lstm import LSTM
from torch import Tensor, nn


class SubsequenceLSTM(nn.Module):
    """Reads the positions that a mask names as if they were the whole line.

    Where they stand, and how much padding is between them, makes no difference. A line of which
    no position is named has states 0, final ones too.

    Args:
        input_dim: size of the inputs.
        hidden_size: size of the states of each direction.
        num_layers: layers, each in both directions.
        dropout: between the layers.

    Example::

        >>> read = torch.tensor([[True, False, True, True, False]])
        >>> states, _, _ = SubsequenceLSTM(3, hidden_size=4)(torch.randn(1, 5, 3), read)
        >>> states.shape, states[0].any(dim=1).tolist()
        (torch.Size([1, 5, 8]), [True, False, True, True, False])
    """

    def __init__(
        self, input_dim: int, hidden_size: int, num_layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.output_units = 2 * hidden_size
        self.lstm = LSTM(
            input_dim,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=True,
            batch_first=True,
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """x (bsz, len, input_dim) and mask (bsz, len), True where to read -> states (bsz, len,
        output_units), 0 elsewhere; final hidden and cell states (num_layers, bsz, output_units).
        """
        # torch packs no empty sequence, and wants to know the lengths on the CPU
        lengths = mask.sum(dim=1).clamp(min=1).cpu()
        # the positions to read first, in their order
        order = mask.int().sort(dim=1, descending=True, stable=True).indices
        order = order[:, : int(lengths.max())].unsqueeze(2)
        read = x.gather(1, order.expand(-1, -1, x.size(2)))
        packed = nn.utils.rnn.pack_padded_sequence(
            read, lengths, batch_first=True, enforce_sorted=False
        )
        packed_states, finals = self.lstm(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            packed_states, batch_first=True, total_length=order.size(1)
        )
        placed = states.new_zeros(*mask.shape, self.output_units)
        placed = placed.scatter(1, order.expand_as(states), states)
        any_named = mask.any(dim=1, keepdim=True)
        hidden, cell = (self._both_directions(final) * any_named for final in finals)
        return placed * mask.unsqueeze(2), hidden, cell

    @staticmethod
    def _both_directions(final: Tensor) -> Tensor:
        forward, backward = final[0::2], final[1::2]
        return torch.cat([forward, backward], dim=2)
