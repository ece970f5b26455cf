"""Cells: one step of a recurrence, in plain tensor code.

A cell maps ``(x, state)`` to ``(y, state)``; any function or module that does so can be
unrolled. The cells here have PyTorch's parameters, shapes, gate order and initial values,
so weights move between the two by name. A step is written in two parts: ``project`` is what
it computes from its input alone, and is done for all time steps at once where the whole
sequence is known; ``step`` is what it computes from that and the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any, Literal

import minigrad as mg
from minigrad import Tensor, nn

#: What a cell carries from one step to the next: a tensor, or nested tuples of tensors.
State = Any


class Cell(nn.Module):
    """What the cells have in common: their parameters, and the checks of their arguments.

    Args:
        input_size: the number of features of x.
        hidden_size: the number of features of h.
        bias: whether there are biases.
        dtype: that of the parameters; float32 by default.
        device: that of the parameters.
        rng: generator or seed of the initial values, U(-k, k) with k = 1 / sqrt(hidden_size).

    Attributes:
        weight_ih: (gates * hidden_size, input_size).
        weight_hh: (gates * hidden_size, hidden_size).
        bias_ih, bias_hh: (gates * hidden_size,), or ``None``.
    """

    #: How many blocks of ``hidden_size`` rows the weights have.
    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        if input_size < 1 or hidden_size < 1:
            raise ValueError(
                f"input_size and hidden_size are at least 1, not {input_size} and {hidden_size}"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        #: The ending of the parameters' names, by which a layer tells its cells apart.
        self.suffix = ""
        rng = nn.init.generator(rng)
        bound = 1.0 / sqrt(hidden_size)
        rows = self.gates * hidden_size

        def parameter(*shape: int) -> nn.Parameter:
            values = nn.init.uniform(shape, -bound, bound, rng=rng, dtype=dtype, device=device)
            return nn.Parameter(values)

        self.weight_ih = parameter(rows, input_size)
        self.weight_hh = parameter(rows, hidden_size)
        self.bias_ih = parameter(rows) if bias else None
        self.bias_hh = parameter(rows) if bias else None

    def state_shape(self, batch_size: int) -> Any:
        """The shape of the state, nested as the state is."""
        return (batch_size, self.hidden_size)

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step: zeros."""
        weight = self.weight_hh
        return map_structure(
            lambda shape: nn.init.zeros(shape, dtype=weight.dtype, device=weight.device),
            self.state_shape(batch_size),
        )

    def project(self, xs: Tensor) -> Tensor:
        """What a step needs of its input:  W_ih x + b,  (..., gates * hidden_size)."""
        raise NotImplementedError

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step from the projected input, (batch, gates * hidden_size), and the state."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One step: x (batch, input_size) and the state (zeros by default) to (y, state).

        Raises ``ValueError`` if x or the state is not of the shape that the cell expects.
        """
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ValueError(
                f"{type(self).__name__} expects x (batch, {self.input_size}), not {x.shape}"
            )
        return self.step(self.project(x), self.checked_state(state, x.shape[0]))

    def checked_state(self, state: State, batch_size: int) -> State:
        """``state``, or zeros for ``None``; ``ValueError`` if it is not of the cell's shape."""
        if state is None:
            return self.initial_state(batch_size)
        check_state(type(self).__name__, state, self.state_shape(batch_size))
        return state

    def members(self) -> Iterator[tuple[str, Any]]:
        """The attributes, the parameters among them with their suffix."""
        for name, value in super().members():
            yield name + self.suffix if isinstance(value, nn.Parameter) else name, value

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh),  or relu instead of tanh.

    y and the state are h, (batch, hidden_size). Elman, Finding structure in time, 1990.

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
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"the nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, dtype=dtype, device=device, rng=rng)
        self.nonlinearity = nonlinearity

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih + b_hh"""
        return _linear(xs, self.weight_ih, _sum(self.bias_ih, self.bias_hh))

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """tanh(projected + W_hh h)"""
        squash = mg.tanh if self.nonlinearity == "tanh" else mg.relu
        h = squash(mg.linear(state, self.weight_hh, projected))
        return h, h


class LSTMCell(Cell):
    """Long short-term memory, with gates in the order i, f, g, o.

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)      input gate
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)      forget gate
        g =    tanh(W_ig x + b_ig + W_hg h + b_hg)      candidate
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)      output gate
        c' = f c + i g
        h' = o tanh(c')

    The state is the tuple (h, c), each (batch, hidden_size); y is h.
    Hochreiter and Schmidhuber, Long short-term memory, 1997; with the forget gate of Gers,
    Schmidhuber and Cummins, Learning to forget, 2000.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.LSTMCell(3, 4, rng=0)
    >>> y, (h, c) = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape, c.shape
    ((1, 4), (1, 4))
    """

    gates = 4

    def state_shape(self, batch_size: int) -> Any:
        """h and c"""
        return ((batch_size, self.hidden_size), (batch_size, self.hidden_size))

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih + b_hh"""
        return _linear(xs, self.weight_ih, _sum(self.bias_ih, self.bias_hh))

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """The gates from projected + W_hh h, and the new h and c."""
        h, c = state
        i, f, g, o = mg.split(mg.linear(h, self.weight_hh, projected), 4, axis=-1)
        c = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
        h = mg.sigmoid(o) * mg.tanh(c)
        return h, (h, c)


class GRUCell(Cell):
    """Gated recurrent unit, with gates in the order r, z, n.

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)      reset gate
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)      update gate
        n =    tanh(W_in x + b_in + r (W_hn h + b_hn))  candidate
        h' = (1 - z) n + z h

    y and the state are h, (batch, hidden_size). The reset gate is applied after the recurrent
    product, as in PyTorch and cuDNN. Cho et al., Learning phrase representations using RNN
    encoder-decoder for statistical machine translation, 2014 (first version).

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.GRUCell(3, 4, rng=0)
    >>> y, h = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape
    (1, 4)
    """

    gates = 3

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih"""
        return _linear(xs, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """The gates from the projected input and W_hh h + b_hh, and the new h."""
        h = state
        x_r, x_z, x_n = mg.split(projected, 3, axis=-1)
        h_r, h_z, h_n = mg.split(_linear(h, self.weight_hh, self.bias_hh), 3, axis=-1)
        r = mg.sigmoid(x_r + h_r)
        z = mg.sigmoid(x_z + h_z)
        n = mg.tanh(x_n + r * h_n)
        h = n + z * (h - n)
        return h, h


def map_structure(function: Any, structure: Any) -> Any:
    """``function`` of every part of a state: a tuple of tuples (or of shapes), or one part."""
    if isinstance(structure, tuple) and not (structure and isinstance(structure[0], int)):
        return tuple(map_structure(function, part) for part in structure)
    return function(structure)


def check_state(name: str, state: State, expected: Any) -> None:
    """Raise ``ValueError`` unless the parts of ``state`` have the ``expected`` shapes."""
    given = map_structure(lambda part: getattr(part, "shape", type(part).__name__), state)
    if given != expected:
        raise ValueError(f"{name} expects a state of shape {expected}, not {given}")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight.T if bias is None else mg.linear(x, weight, bias)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b
