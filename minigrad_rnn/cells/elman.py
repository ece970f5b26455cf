"""Cells without gates: the plain recurrent network, and one whose units do not mix."""

from __future__ import annotations

from typing import Any, Literal

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells.cell import Cell, State, added, fill, linear

Nonlinearity = Literal["tanh", "relu"]


class _Ungated(Cell):
    """h' = tanh(projected + what h adds),  or relu instead of tanh."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, nonlinearity: Nonlinearity, **made: Any
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"the nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, **made)

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih + b_hh"""
        return linear(xs, self.weight_ih, added(self.bias_ih, self.bias_hh))

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """tanh(projected + what h adds)"""
        squash = mg.tanh if self.nonlinearity == "tanh" else mg.relu
        h = squash(self._with_recurrence(projected, self.masked(state)))
        return h, h

    def _with_recurrence(self, projected: Tensor, h: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The sizes, and the nonlinearity."""
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity!r}"


class RNNCell(_Ungated):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh),  or relu instead of tanh.

    y and the state are h, (batch, hidden_size). Elman, Finding structure in time, 1990.

    Args:
        nonlinearity: ``"tanh"`` or ``"relu"``.
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`.

    Raises ``ValueError`` for a size below 1, or another nonlinearity.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.RNNCell(3, 4, rng=0)
    >>> y, state = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape, state is y
    ((1, 4), True)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Nonlinearity = "tanh",
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, nonlinearity, dtype=dtype, device=device, rng=rng
        )

    def _with_recurrence(self, projected: Tensor, h: Tensor) -> Tensor:
        """projected + W_hh h"""
        return mg.linear(h, self.weight_hh, projected)


class IndRNNCell(_Ungated):
    """h' = relu(W_ih x + b_ih + u h),  u h element by element; or tanh instead of relu.

    Every unit sees its own past alone, so its memory can be read off u; units mix in the
    layer above. y and the state are h, (batch, hidden_size). Li, Li, Cook, Zhu and Gao,
    Independently recurrent neural network (IndRNN): building a longer and deeper RNN, 2018.

    Args:
        nonlinearity: ``"relu"`` or ``"tanh"``.
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`. The initial u
            is U(0, 1): relu forgets, and does not explode.

    Attributes:
        weight_ih: (hidden_size, input_size).
        weight_hh: u, (hidden_size,).
        bias_ih: (hidden_size,), or ``None``.

    Raises ``ValueError`` for a size below 1, or another nonlinearity.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.IndRNNCell(3, 4, rng=0)
    >>> y, h = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape, cell.weight_hh.shape
    ((1, 4), (4,))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        nonlinearity: Nonlinearity = "relu",
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, nonlinearity, dtype=dtype, device=device, rng=rng
        )

    def parameter_shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """u in place of W_hh, and one bias."""
        return {
            **super().parameter_shapes(bias),
            "weight_hh": (self.hidden_size,),
            "bias_hh": None,
        }

    def reset_parameters(self, rng: Any = None) -> None:
        """Draw the initial values anew: u from U(0, 1), the others as for every cell."""
        rng = nn.init.generator(rng)
        super().reset_parameters(rng)
        fill(self.weight_hh, nn.init.uniform, rng=rng)

    def _with_recurrence(self, projected: Tensor, h: Tensor) -> Tensor:
        """projected + u h"""
        return projected + self.weight_hh * h
