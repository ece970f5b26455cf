"""minGRU and minLSTM: gates that depend on the input alone.

Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, Were RNNs all we needed?, 2024. With h out of
the gates, the recurrence is  h' = a h + b,  and all of a and b is known before the first step.
"""

from __future__ import annotations

from typing import ClassVar

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.cells.cell import Cell, State, linear


class _InputGated(Cell):
    """h' = a h + b,  where a and b are what :meth:`project` makes of x."""

    recurrent_product: ClassVar[bool] = False

    def parameter_shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """W and b; there are no recurrent weights."""
        shapes = {**super().parameter_shapes(bias), "bias_hh": None}
        del shapes["weight_hh"]
        return shapes

    def _blocks(self, xs: Tensor) -> list[Tensor]:
        """W x + b,  by gate"""
        projected = linear(xs, self.weight_ih, self.bias_ih)
        return mg.split(projected, len(self.gates), axis=-1)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """a h + b"""
        a, b = mg.split(projected, 2, axis=-1)
        h = a * state + b
        return h, h


class MinGRUCell(_InputGated):
    """A GRU whose update gate does not see h, with blocks in the order z, n.

        z = sigmoid(W_z x + b_z)    update gate
        n = W_n x + b_n             candidate
        h' = (1 - z) h + z n

    y and the state are h, (batch, hidden_size). See :mod:`minigrad_rnn.cells.minimal` for the
    source. The candidate is not squashed, and z is 1 minus the z of :class:`GRUCell`.

    Args:
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`.

    Attributes:
        weight_ih: (2 hidden_size, input_size).
        bias_ih: (2 hidden_size,), or ``None``.

    Raises ``ValueError`` for a size below 1.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.MinGRUCell(3, 4, rng=0)
    >>> y, h = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape
    (1, 4)
    """

    gates = ("z", "n")
    forget_gate = ("z", -1)

    def project(self, xs: Tensor) -> Tensor:
        """1 - z  and  z n"""
        z, n = self._blocks(xs)
        z = mg.sigmoid(z)
        return mg.concatenate([1.0 - z, z * n], axis=-1)


class MinLSTMCell(_InputGated):
    """An LSTM whose gates do not see h, and share 1 between them; blocks f, i, n.

        f = sigmoid(W_f x + b_f)    forget gate
        i = sigmoid(W_i x + b_i)    input gate
        n = W_n x + b_n             candidate
        h' = (f h + i n) / (f + i)

    y and the state are h, (batch, hidden_size): there is no other memory. See
    :mod:`minigrad_rnn.cells.minimal` for the source.

    Args:
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`.

    Attributes:
        weight_ih: (3 hidden_size, input_size).
        bias_ih: (3 hidden_size,), or ``None``.

    Raises ``ValueError`` for a size below 1.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.MinLSTMCell(3, 4, rng=0)
    >>> y, h = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape
    (1, 4)
    """

    gates = ("f", "i", "n")
    forget_gate = ("f", 1)

    def project(self, xs: Tensor) -> Tensor:
        """f / (f + i)  and  i n / (f + i)"""
        f, i, n = self._blocks(xs)
        # f / (f + i) = sigmoid(log f - log i),  which holds where both gates round to 0.
        kept = mg.sigmoid(mg.softplus(-i) - mg.softplus(-f))
        return mg.concatenate([kept, (1.0 - kept) * n], axis=-1)
