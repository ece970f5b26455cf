"""Layers: cells one above the other, run over a sequence, forwards or in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells import Cell, GRUCell, LSTMCell, RNNCell, State
from minigrad_rnn.states import check_state, map_state, shapes_of
from minigrad_rnn.unrolling import Outputs, Step, check_outputs, flags, name_of, unroll


class Recurrent(nn.Module):
    """Cells, one above the other, run over time; each reads the outputs of the one below.

    Dropout acts in training alone. All masks that are constant over time are drawn once for
    each call and each sequence of the batch, so that it sees one thinned network throughout:
    Gal and Ghahramani, A theoretically grounded application of dropout in recurrent neural
    networks, 2016.

    Args:
        cells: one item for each layer, lowest first: a cell, or for a layer that runs in both
            directions a pair of cells, the second for the reverse. Its output is the y of both,
            side by side. A cell is any function or module that maps (x, state) to (y, state);
            see :func:`unroll`.
        batch_first: whether xs and ys are (batch, time, features) instead of (time, batch,
            features), and masks (batch, time). States are never batch first.
        dropout: the probability of dropping an output between two layers.
        variational: whether ``dropout`` and ``input_dropout`` drop the same elements at all
            steps.
        input_dropout: the probability of dropping an element of xs.
        recurrent_dropout: the probability of dropping an element of h where it enters the
            recurrent product (``cell.recurrent_mask``), the same at all steps.
        weight_dropout: the probability of dropping an element of ``weight_hh``, drawn once for
            each call: Merity, Keskar and Socher, Regularizing and optimizing LSTM language
            models, 2018.
        learn_initial_state: whether the state before the first step is a parameter, the same
            for every sequence, and at first what the cell's ``initial_state`` gives. Its names
            are ``initial_l0``, ``initial_l0_reverse``, ...
        residual: whether every layer above the first adds its input to its output.
        outputs: ``"sequence"`` for the outputs at all steps, ``"last"`` for those of the last
            valid step of every sequence, which for a reverse cell is the first in time,
            ``"states"`` for the outputs and the states at all steps.
        unrolled: whether every operation of every step is recorded, see :func:`unroll`.
        rng: generator or seed of the dropout masks.

    Attributes:
        layers: the cells of every layer, in a tuple of one, or of two for both directions.
        cells: all cells, in the order in which their states stand: that of the first layer, its
            reverse one, that of the second layer, ... Their parameters are the layer's
            attributes under PyTorch's names: ``weight_ih_l0``, ``weight_hh_l0_reverse``, ...

    A cell may stand in several places, of one layer or of more, and has the same parameters in
    all of them.

    Raises ``ValueError`` for settings that have nothing to act on, and if a cell does not
    expect as many features as the layer below gives; ``TypeError`` if ``cells`` is no list.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> layer = rnn.Recurrent([rnn.GRUCell(3, 5, rng=0), rnn.RNNCell(5, 2, rng=1)])
    >>> ys, (lower, upper) = layer(mg.tensor([[[1.0, 2.0, 3.0]]] * 7))
    >>> ys.shape, lower.shape, upper.shape
    ((7, 1, 2), (1, 5), (1, 2))
    """

    def __init__(
        self,
        cells: Sequence[Step | Sequence[Step]],
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        learn_initial_state: bool = False,
        residual: bool = False,
        outputs: Outputs = "sequence",
        unrolled: bool | None = None,
        rng: Any = None,
    ) -> None:
        if callable(cells):
            raise TypeError("cells is a list with one item for each layer: for one, write [cell]")
        self.layers = [tuple(c) if isinstance(c, list | tuple) else (c,) for c in cells]
        self.batch_first = batch_first
        self.dropout = dropout
        self.variational = variational
        self.input_dropout = input_dropout
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.learn_initial_state = learn_initial_state
        self.residual = residual
        self.outputs = outputs
        self.unrolled = unrolled
        self.rng = nn.init.generator(rng)
        self._check()
        self.layers = [
            tuple(_labelled(cell, _label(k, reverse)) for reverse, cell in enumerate(layer))
            for k, layer in enumerate(self.layers)
        ]
        if learn_initial_state:
            for label, cell in self._places():
                setattr(self, f"initial_{label}", _learned_state(cell))

    @property
    def cells(self) -> list[Any]:
        """All cells, in the order of their states."""
        return [cell for layer in self.layers for cell in layer]

    def forward(
        self,
        xs: Tensor,
        state: State = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        reset: Any = None,
    ) -> tuple[Any, State]:
        """Run over a sequence.

        Args:
            xs: (time, batch, features), or (batch, time, features) if ``batch_first``; a
                single sequence may be (time, features), and its states are without a batch.
            state: the states of all cells before the first step, in a tuple; ``None`` for the
                initial state.
            lengths, mask, reset: as for :func:`unroll`, which says what happens at steps that
                are not valid; mask and reset are laid out as xs.

        Returns the outputs of the highest layer, laid out as xs, and the last state, laid out
        as the initial one. For ``outputs="states"`` it is the state after every step: its parts
        have an axis for time, the first of all.

        Raises what :func:`unroll` raises.
        """
        if not isinstance(xs, Tensor):
            xs = mg.asarray(xs)
        self._check_axes(xs)
        batch_first = self.batch_first and xs.ndim > 2
        if batch_first:
            mask, reset = (
                given if given is None else flags(name, given, xs, "(batch, time)").swapaxes(0, 1)
                for name, given in (("mask", mask), ("reset", reset))
            )
            xs = xs.swapaxes(0, 1)
        batch = xs.shape[1:2] if xs.ndim > 2 else ()
        marks = {"lengths": lengths, "mask": mask, "reset": reset}
        given = iter(self._separated(state, *batch))
        learned = iter(self._learned_states(*batch))
        finals = []
        ys = self._dropped(xs, self.input_dropout)
        del xs
        for k, layer in enumerate(self.layers):
            top = k == len(self.layers) - 1
            outputs = "sequence" if self.outputs == "last" and not top else self.outputs
            below = self._dropped(ys, self.dropout) if k else ys
            parts = []
            for reverse, cell in enumerate(layer):
                settings = {"reverse": bool(reverse), "outputs": outputs, **marks}
                y, final = self._run(cell, below, next(given), initial=next(learned), **settings)
                parts.append(y)
                finals.append(final)
            ys = parts[0] if len(parts) == 1 else mg.concatenate(parts, axis=-1)
            if self.residual and k:
                shortcut = below if outputs != "last" else self._last(below, parts, lengths, mask)
                if shortcut.shape != ys.shape:
                    raise ValueError(
                        f"residual adds what layer {k} reads, {shortcut.shape}, to its outputs, "
                        f"{ys.shape}: they must have as many features"
                    )
                ys = ys + shortcut
        if batch_first and self.outputs != "last":
            ys = ys.swapaxes(0, 1)
        return ys, self._joined(finals, 1 if self.outputs == "states" else 0)

    def initial_state(self, batch_size: int | None = None) -> State:
        """The state before the first step: the learned one, or what the cells begin with."""
        batch = () if batch_size is None else (batch_size,)
        states = self._learned_states(*batch)
        for i, cell in enumerate(self.cells):
            if not self.learn_initial_state and hasattr(cell, "initial_state"):
                states[i] = cell.initial_state(batch_size)
        return self._joined(states, 0)

    # ---------------------------------------------------------------- parts of the forward

    def _run(self, cell: Any, xs: Tensor, state: State, **settings: Any) -> tuple[Any, State]:
        """Unroll a cell, with what is dropped inside it."""
        values = {}
        if self.training and self.weight_dropout:
            values["weight_hh"] = self._drop(self.weight_dropout, cell.weight_hh)
        if self.training and self.recurrent_dropout:
            shape = (*xs.shape[1:-1], cell.output_size)
            values["recurrent_mask"] = self._mask(self.recurrent_dropout, shape, cell.weight_hh)
        with cell.using(**values) if values else nullcontext():
            return unroll(cell, xs, state, unrolled=self.unrolled, **settings)

    def _dropped(self, xs: Tensor, p: float) -> Tensor:
        """A sequence with some elements dropped."""
        if not self.training or not p:
            return xs
        return xs * self._mask(p, xs.shape[1:], xs) if self.variational else self._drop(p, xs)

    def _mask(self, p: float, shape: Sequence[int], like: Tensor) -> Tensor:
        """What drops elements by multiplication: 0 with probability p, and else 1 / (1 - p)."""
        return self._drop(p, nn.init.ones(shape, dtype=like.dtype, device=like.device))

    def _drop(self, p: float, x: Tensor) -> Tensor:
        return nn.Dropout(p, rng=self.rng)(x)

    def _last(self, xs: Tensor, parts: list[Tensor], lengths: Any, mask: Any) -> Tensor:
        """What a layer reads at those steps at which its last outputs, ``parts``, stand."""
        ends = list(accumulate(part.shape[-1] for part in parts))
        sections = mg.split(xs, ends[:-1], axis=-1)
        marks = {"lengths": lengths, "mask": mask}
        last = [
            unroll(_passed_on, section, reverse=bool(reverse), outputs="last", **marks)[0]
            for reverse, section in enumerate(sections)
        ]
        return mg.concatenate(last, axis=-1)

    # ---------------------------------------------------------------- states

    def _separated(self, state: State, *batch: int) -> list[State]:
        """The state of every cell, taken out of the state of all."""
        number = len(self.cells)
        if state is None:
            return [None] * number
        if not isinstance(state, list | tuple) or len(state) != number:
            raise ValueError(
                f"{type(self).__name__} expects a tuple with the state of each of its {number} "
                f"cells, not {shapes_of(state)}"
            )
        return list(state)

    def _joined(self, states: list[State], axis: int) -> State:
        """The state of all cells; ``axis`` is that of the cells where states are stacked."""
        return tuple(states)

    def _learned_states(self, *batch: int) -> list[State]:
        """The learned state of every cell for a batch; ``None`` where none is learned."""
        if not self.learn_initial_state:
            return [None] * len(self.cells)
        return [
            map_state(
                lambda part: mg.broadcast_to(part, (*batch, *part.shape)),
                getattr(self, f"initial_{label}"),
            )
            for label, _ in self._places()
        ]

    # ---------------------------------------------------------------- what is refused

    def _check(self) -> None:
        """Raise ``ValueError`` for settings that cannot be meant."""
        if not self.layers:
            raise ValueError("there are no cells: give at least one layer")
        for k, layer in enumerate(self.layers):
            if len(layer) not in (1, 2) or not all(callable(cell) for cell in layer):
                raise ValueError(
                    f"layer {k} is a cell, or a pair of a cell and one for the reverse, not {layer}"
                )
        for option, unit in (("dropout", "applied"), ("residual", "added")):
            if getattr(self, option) and len(self.layers) == 1:
                raise ValueError(
                    f"{option} is {unit} between layers, and there is only one: give two or more, "
                    "or write it after the layer"
                )
        for name in ("dropout", "input_dropout", "recurrent_dropout", "weight_dropout"):
            p = getattr(self, name)
            if not 0.0 <= p < 1.0:
                raise ValueError(f"{name} is a probability, in [0, 1), not {p}")
        check_outputs(self.outputs)
        for cell in self.cells:
            if self.weight_dropout and getattr(cell, "weight_hh", None) is None:
                raise ValueError(
                    f"weight_dropout drops elements of weight_hh, which {name_of(cell)} has not"
                )
            if self.recurrent_dropout and not getattr(cell, "recurrent_product", False):
                raise ValueError(
                    f"recurrent_dropout acts where h enters a product with weights, and "
                    f"{name_of(cell)} is no cell of this package that has one"
                )
        self._check_features()

    def _check_features(self) -> None:
        for k, (lower, layer) in enumerate(pairwise(self.layers), start=1):
            given: list[Any] = [getattr(cell, "output_size", None) for cell in lower]
            for cell in layer:
                expected = getattr(cell, "input_size", None)
                if None not in (expected, *given) and sum(given) != expected:
                    raise ValueError(
                        f"the {name_of(cell)} of layer {k} reads {expected} features, and the "
                        f"layer below gives {' + '.join(map(str, given))}"
                    )

    def _check_axes(self, xs: Tensor) -> None:
        cell = self.cells[0]
        if isinstance(cell, Cell) and (xs.ndim not in (2, 3) or xs.shape[-1] != cell.input_size):
            layout = "batch, time" if self.batch_first else "time, batch"
            raise ValueError(
                f"{type(self).__name__} expects xs ({layout}, {cell.input_size}), not {xs.shape}"
            )

    # ---------------------------------------------------------------- as a module

    def _places(self) -> Iterator[tuple[str, Any]]:
        """Every cell, and the label of its place."""
        for k, layer in enumerate(self.layers):
            for reverse, cell in enumerate(layer):
                yield _label(k, reverse), cell

    def members(self) -> Iterator[tuple[str, Any]]:
        """The attributes; the cells' parameters bear the layer's number in their names."""
        for name, value in super().members():
            if name == "layers":
                for label, cell in self._places():
                    yield "" if isinstance(cell, Cell) else label, cell
            else:
                yield name, value

    def _cell_with(self, name: str) -> Cell | None:
        """The cell that has the parameter of that name, such as ``weight_hh_l1``."""
        for layer in self.__dict__.get("layers", ()):
            for cell in layer:
                own = name.removesuffix(cell.suffix) if isinstance(cell, Cell) else name
                if own != name and own in vars(cell):
                    value = vars(cell)[own]
                    if isinstance(value, Tensor | nn.Module) or own in cell.parameter_shapes(True):
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
        """The cells, and the options that are not the default ones."""
        return ", ".join([*self._sizes(), *self._options()])

    def _sizes(self) -> Iterator[str]:
        for layer in self.layers:
            names = [repr(cell) if isinstance(cell, Cell) else name_of(cell) for cell in layer]
            yield names[0] if len(names) == 1 else f"({', '.join(names)})"

    def _options(self) -> Iterator[str]:
        for name, default in OPTIONS.items():
            if name != "rng" and getattr(self, name) != default:
                yield f"{name}={getattr(self, name)!r}"


#: The options of a layer, and their defaults.
OPTIONS = {
    parameter.name: parameter.default
    for parameter in signature(Recurrent).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def _label(k: int, reverse: int) -> str:
    """The place of a cell, as PyTorch's names say it."""
    return f"l{k}_reverse" if reverse else f"l{k}"


def _labelled(cell: Any, label: str) -> Any:
    """The cell, with the label in the names of its parameters."""
    if not isinstance(cell, Cell) or cell.suffix == f"_{label}":
        return cell
    if cell.suffix:  # It keeps the names that it has in another place.
        cell = copy(cell)
    cell.suffix = f"_{label}"
    return cell


def _passed_on(x: Tensor, state: State) -> tuple[Tensor, State]:
    return x, x


def _learned_state(cell: Any) -> State:
    """A state of parameters, for one sequence."""
    if not hasattr(cell, "initial_state"):
        raise ValueError(
            f"to learn the initial state of {name_of(cell)}, its shape must be known: give the "
            "cell a method initial_state(batch_size)"
        )
    return map_state(lambda part: nn.Parameter(part[0].array.copy()), cell.initial_state(1))


class Stacked(Recurrent):
    """What RNN, LSTM and GRU have in common: PyTorch's arguments, names and states.

    Args:
        input_size: the number of features of x.
        hidden_size: the number of features of h.
        num_layers: how many layers, one above the other.
        bias: whether the cells have biases.
        batch_first, dropout: as for :class:`Recurrent`.
        bidirectional: whether every layer has a second cell that runs in reverse.
        dtype, device: those of the parameters.
        rng: generator or seed of the initial values and the dropout masks.
        options: those of :class:`Recurrent` and of the cell, by name.

    The parts of a state are (num_layers * directions, batch, features), in the order l0,
    l0_reverse, l1, ...
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
        bidirectional: bool = False,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
        **options: Any,
    ) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers is at least 1, not {num_layers}")
        own = {name: options.pop(name) for name in OPTIONS.keys() & options.keys()}
        made = {"dtype": dtype, "device": device, "rng": nn.init.generator(rng)}
        directions = 2 if bidirectional else 1
        features, layers = input_size, []
        for _ in range(num_layers):
            layer = [
                self.cell_type(features, hidden_size, bias, **options, **made)
                for _ in range(directions)
            ]
            layers.append(tuple(layer))
            features = sum(cell.output_size for cell in layer)
        super().__init__(layers, batch_first=batch_first, dropout=dropout, rng=made["rng"], **own)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional

    def _separated(self, state: State, *batch: int) -> list[State]:
        number = len(self.cells)
        if state is None:
            return [None] * number
        check_state(type(self).__name__, state, self.cells[0].state_sizes, number, *batch)
        if isinstance(state, tuple):
            return list(zip(*map(mg.unstack, state), strict=True))
        return list(mg.unstack(state))

    def _joined(self, states: list[State], axis: int) -> State:
        return map_state(lambda *parts: mg.stack(parts, axis), *states)

    def _sizes(self) -> Iterator[str]:
        yield self.cells[0].extra_repr()
        yield f"num_layers={self.num_layers}"
        if self.bidirectional:
            yield "bidirectional=True"


class RNN(Stacked):
    """Layers of :class:`RNNCell`; ``nonlinearity`` is ``"tanh"`` or ``"relu"``.

    The state is (num_layers * directions, batch, hidden_size). See
    :class:`minigrad_rnn.layers.Stacked` for the other arguments, and :class:`Recurrent` for what
    it computes.

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
        bidirectional: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            nonlinearity=nonlinearity,
            **options,
        )


class LSTM(Stacked):
    """Layers of :class:`LSTMCell`, whose options are arguments, too: ``proj_size=``, ...

    The state is the tuple (h, c): h (num_layers * directions, batch, hidden_size, or proj_size
    if that is given), c (num_layers * directions, batch, hidden_size). See
    :class:`minigrad_rnn.layers.Stacked` for the other arguments, and :class:`Recurrent` for what
    it computes.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> layer = rnn.LSTM(3, 4, batch_first=True, bidirectional=True, rng=0)
    >>> ys, (h, c) = layer(mg.tensor([[[1.0, 2.0, 3.0]] * 5]))
    >>> ys.shape, h.shape, c.shape
    ((1, 5, 8), (2, 1, 4), (2, 1, 4))
    >>> layer.weight_hh_l0_reverse.shape
    (16, 4)
    """

    cell_type = LSTMCell


class GRU(Stacked):
    """Layers of :class:`GRUCell`, whose options are arguments, too.

    The state is (num_layers * directions, batch, hidden_size). See
    :class:`minigrad_rnn.layers.Stacked` for the other arguments, and :class:`Recurrent` for what
    it computes.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> layer = rnn.GRU(3, 4, rng=0)
    >>> ys, state = layer(mg.tensor([[[1.0, 2.0, 3.0]]] * 5), lengths=[3])
    >>> ys.shape, state.shape
    ((5, 1, 4), (1, 1, 4))
    """

    cell_type = GRUCell
