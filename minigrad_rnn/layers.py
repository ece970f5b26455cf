"""Layers: cells unrolled over a sequence. Their tape is the unrolled graph of BPTT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells import (
    Cell,
    GRUCell,
    LSTMCell,
    RNNCell,
    State,
    check_state,
    map_structure,
)


def unroll(
    cell: Callable[[Tensor, State], tuple[Tensor, State]], xs: Tensor, state: State = None
) -> tuple[Tensor, State]:
    """Run a cell over time: the loop whose recording backpropagation through time reads.

        for every t:  y_t, state = cell(x_t, state)

    Args:
        cell: any function or module that maps (x, state) to (y, state).
        xs: (time, batch, features), of at least one step.
        state: the state before the first step; ``None`` is handed to the cell, which for
            the cells of this package means zeros.

    Returns the y of all steps, (time, batch, ...), and the last state.

    Raises ``ValueError`` if there are no steps, or a shape does not suit the cell.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> def running_sum(x, state):
    ...     return state + x, state + x
    >>> rnn.unroll(running_sum, mg.tensor([[1.0], [2.0], [3.0]]), mg.tensor([0.0]))
    (tensor([[1.],
            [3.],
            [6.]]), tensor([6.]))
    """
    if not xs.ndim or not xs.shape[0]:
        raise ValueError(f"a sequence has at least one step; xs is {xs.shape}, time first")
    step: Any = cell
    if isinstance(cell, Cell) and type(cell).forward is Cell.forward:
        if xs.ndim != 3 or xs.shape[2] != cell.input_size:
            raise ValueError(
                f"{type(cell).__name__} expects xs (time, batch, {cell.input_size}), not {xs.shape}"
            )
        state = cell.checked_state(state, xs.shape[1])
        xs, step = cell.project(xs), cell.step
    ys = []
    for x in mg.unstack(xs):
        y, state = step(x, state)
        ys.append(y)
    return mg.stack(ys), state


class Recurrent(nn.Module):
    """What RNN, LSTM and GRU have in common: cells, one above the other, run over time.

    Args:
        input_size: the number of features of x.
        hidden_size: the number of features of h.
        num_layers: how many cells; each reads the outputs of the one below.
        bias: whether the cells have biases.
        batch_first: whether x and y are (batch, time, features) instead of (time, batch,
            features). States are never batch first.
        dropout: the probability of dropping an output between two layers, in training.
        dtype, device: those of the parameters.
        rng: generator or seed of the initial values and the dropout masks.

    Attributes:
        cells: the cells, lowest first. Their parameters are the layer's attributes under
            PyTorch's names: ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ...
    """

    cell_type: ClassVar[type[Cell]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
        **cell_settings: Any,
    ) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers is at least 1, not {num_layers}")
        if dropout and num_layers == 1:
            raise ValueError(
                "dropout is applied between layers, and there is only one: give num_layers=2 or "
                "more, or put nn.Dropout after the layer"
            )
        rng = nn.init.generator(rng)
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = nn.Dropout(dropout, rng=rng)
        self.cells = [
            self.cell_type(
                hidden_size if k else input_size,
                hidden_size,
                bias,
                dtype=dtype,
                device=device,
                rng=rng,
                **cell_settings,
            )
            for k in range(num_layers)
        ]
        for k, cell in enumerate(self.cells):
            cell.suffix = f"_l{k}"

    def forward(self, xs: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Run over a sequence.

        Args:
            xs: (time, batch, input_size), or (batch, time, input_size) if ``batch_first``.
            state: (num_layers, batch, hidden_size), for an LSTM the tuple (h, c) of two such;
                zeros by default.

        Returns the outputs of the highest layer at all steps, laid out as xs, and the last
        state of all layers, laid out as the initial one.

        Raises ``ValueError`` if xs or the state is not of the shape that the layer expects.
        """
        if xs.ndim != 3:
            layout = "(batch, time, features)" if self.batch_first else "(time, batch, features)"
            raise ValueError(f"{type(self).__name__} expects xs {layout}, not {xs.shape}")
        ys = xs.swapaxes(0, 1) if self.batch_first else xs
        states = self._layer_states(state, ys.shape[1])
        last = []
        for k, cell in enumerate(self.cells):
            if k:
                ys = self.dropout(ys)
            ys, final = unroll(cell, ys, states[k])
            last.append(final)
        return ys.swapaxes(0, 1) if self.batch_first else ys, _stack_states(last)

    def initial_state(self, batch_size: int) -> State:
        """Zeros of the state's shape."""
        return _stack_states([cell.initial_state(batch_size) for cell in self.cells])

    def _layer_states(self, state: State, batch_size: int) -> list[State]:
        """The state of every layer, taken out of the state of all."""
        if state is None:
            return [None] * self.num_layers
        expected = map_structure(
            lambda shape: (self.num_layers, *shape), self.cells[0].state_shape(batch_size)
        )
        check_state(type(self).__name__, state, expected)
        if isinstance(state, tuple):
            return list(zip(*map(mg.unstack, state), strict=True))
        return list(mg.unstack(state))

    def members(self) -> Iterator[tuple[str, Any]]:
        """The attributes; the cells' parameters bear the layer's number in their names."""
        for name, value in super().members():
            if name == "cells":
                yield from (("", cell) for cell in value)
            else:
                yield name, value

    def _cell_with(self, name: str) -> Cell | None:
        """The cell that has the weight of that name, such as ``weight_hh_l1``."""
        for cell in self.__dict__.get("cells", ()):
            weight = name.removesuffix(cell.suffix)
            if weight != name and weight.startswith(("weight_", "bias_")) and weight in vars(cell):
                return cell
        return None

    def __getattr__(self, name: str) -> Any:
        cell = self._cell_with(name)
        weight = None if cell is None else getattr(cell, name.removesuffix(cell.suffix))
        if weight is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return weight

    def __setattr__(self, name: str, value: Any) -> None:
        cell = self._cell_with(name)
        if cell is None:
            super().__setattr__(name, value)
        else:
            setattr(cell, name.removesuffix(cell.suffix), value)

    def extra_repr(self) -> str:
        """The sizes."""
        cell = self.cells[0]
        text = f"{cell.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return text + (", batch_first=True" if self.batch_first else "")


def _stack_states(states: list[State]) -> State:
    """The state of all layers from the state of every one."""
    if isinstance(states[0], tuple):
        return tuple(mg.stack(parts) for parts in zip(*states, strict=True))
    return mg.stack(states)


class RNN(Recurrent):
    """Layers of :class:`RNNCell`; ``nonlinearity`` is ``"tanh"`` or ``"relu"``.

    The state is (num_layers, batch, hidden_size). See :class:`Recurrent` for the rest.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> layer = rnn.RNN(3, 4, num_layers=2, rng=0)
    >>> ys, state = layer(mg.tensor([[[1.0, 2.0, 3.0]]] * 5))
    >>> ys.shape, state.shape
    ((5, 1, 4), (2, 1, 4))
    """

    cell_type = RNNCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            dtype=dtype,
            device=device,
            rng=rng,
            nonlinearity=nonlinearity,
        )


class LSTM(Recurrent):
    """Layers of :class:`LSTMCell`.

    The state is the tuple (h, c), each (num_layers, batch, hidden_size). See
    :class:`Recurrent` for the rest.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> layer = rnn.LSTM(3, 4, batch_first=True, rng=0)
    >>> ys, (h, c) = layer(mg.tensor([[[1.0, 2.0, 3.0]] * 5]))
    >>> ys.shape, h.shape, c.shape
    ((1, 5, 4), (1, 1, 4), (1, 1, 4))
    >>> layer.weight_hh_l0.shape
    (16, 4)
    """

    cell_type = LSTMCell


class GRU(Recurrent):
    """Layers of :class:`GRUCell`.

    The state is (num_layers, batch, hidden_size). See :class:`Recurrent` for the rest.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> layer = rnn.GRU(3, 4, rng=0)
    >>> ys, state = layer(mg.tensor([[[1.0, 2.0, 3.0]]] * 5))
    >>> ys.shape, state.shape
    ((5, 1, 4), (1, 1, 4))
    """

    cell_type = GRUCell
