"""A layer as a stack of cells with named weights, taken apart and put together.

This is what the converters share: which layers they can take, the order of a cell's gates, and
how a layer is made of weights.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn
from minigrad_rnn.cells import Cell, GRUCell, LSTMCell, RNNCell
from minigrad_rnn.layers import GRU, LSTM, RNN, Recurrent

#: The layer of each cell that the other libraries know.
LAYERS: dict[type[Cell], Any] = {RNNCell: RNN, LSTMCell: LSTM, GRUCell: GRU}

#: What a layer or a cell can have that not all the other libraries have: the option, the attribute
#: that shows it, and its value (or whether it is there at all) where it is not used.
OPTIONS = (
    ("residual", "residual", False),
    ("learn_initial_state", "learn_initial_state", False),
    ("outputs", "outputs", "sequence"),
    ("proj_size", "proj_size", 0),
    ("peepholes", "peepholes", False),
    ("coupled", "coupled", False),
    ("layer_norm", "norm_ih", False),
    ("zoneout_h", "zoneout_h", False),
    ("zoneout_c", "zoneout_c", False),
    ("reset", "reset", "after"),
)

#: The weights whose rows are blocks, one for each gate.
GATED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def cells_of(layer: Recurrent, target: str, has: Mapping[str, Container[Any]]) -> list[list[Cell]]:
    """The cells of a layer: for every layer of the stack one, or the forward and the reverse one.

    Args:
        layer: what is to be expressed in another library.
        target: the name of that library.
        has: the options that it can express although not all libraries can, and their values.

    Raises:
        TypeError: if it is not a recurrent layer, or its cells are not of one known kind.
        ValueError: if it has an option that the library cannot express, or cells that differ.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"only a recurrent layer can go to {target}, not {type(layer).__name__}")
    kinds = {type(cell) for cell in layer.cells}
    if len(kinds) > 1 or not kinds <= LAYERS.keys():
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(
            f"a layer that goes to {target} has RNNCells, LSTMCells or GRUCells alone, not {names}"
        )
    for part in (layer, *layer.cells):
        for option, attribute, unused in OPTIONS:
            value = getattr(part, attribute, unused)
            value = value if isinstance(value, int | str) else bool(value)
            if value != unused and value not in has.get(option, ()):
                raise ValueError(
                    f"{target} has no {option}={value!r}, and this {type(part).__name__} has"
                )
    if len({_options(cell) for cell in layer.cells}) > 1:
        raise ValueError(
            f"a layer that goes to {target} has cells with the same options and hidden size: "
            f"these are {', '.join(map(repr, layer.cells))}"
        )
    return [list(cells) for cells in layer.layers]


def cell_type_of(recurrent: NDArray[Any]) -> type[Cell]:
    """RNNCell, GRUCell or LSTMCell, by a recurrent weight (gates * hidden_size, hidden_size)."""
    if recurrent.ndim == 2:
        rows, hidden = recurrent.shape
        for cell_type in LAYERS:
            if rows == len(cell_type.gates) * hidden:
                return cell_type
    raise ValueError(
        "a recurrent weight has for each hidden unit 1 (RNN), 3 (GRU) or 4 (LSTM) rows of as many "
        f"numbers as there are units; this one has the shape {recurrent.shape}"
    )


def weights_of(cell: Cell, order: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Copies of the parameters of a cell by name, without suffix, the gates in the given order."""
    return {
        name: reordered(value.numpy(), cell.gates, order) if name in GATED else value.numpy().copy()
        for name, value in vars(cell).items()
        if isinstance(value, nn.Parameter)
    }


def layer_of(
    cell_type: type[Cell],
    weights: Sequence[Sequence[Mapping[str, NDArray[Any]]]],
    order: Sequence[str],
    **options: Any,
) -> Recurrent:
    """A layer of such cells with the given weights, each as :func:`weights_of` gives them.

    Raises ``ValueError`` if the weights do not fit together, naming them as PyTorch does.
    """
    bottom = weights[0][0]
    if bottom["weight_ih"].ndim != 2:
        raise ValueError(
            f"weight_ih_l0 is (gates * hidden_size, input_size), not {bottom['weight_ih'].shape}"
        )
    rows = {len(cell["weight_hh"]) for cells in weights for cell in cells}
    sizes = sorted(number // len(order) for number in rows)
    if len(sizes) > 1:
        raise ValueError(
            f"the layers of a stack have one hidden size, and these have {sizes}: convert them "
            "one by one"
        )
    if len({len(cells) for cells in weights}) > 1:
        raise ValueError("of the layers of a stack, all of them run in both directions, or none")
    layer = LAYERS[cell_type](
        bottom["weight_ih"].shape[1],
        sizes[0],
        num_layers=len(weights),
        bias="bias_ih" in bottom,
        bidirectional=len(weights[0]) == 2,
        dtype=bottom["weight_ih"].dtype,
        rng=0,
        **options,
    )
    cells = [cell for cells in weights for cell in cells]
    layer.load_state_dict(
        {
            name + cell.suffix: reordered(array, order, cell.gates) if name in GATED else array
            for cell, arrays in zip(layer.cells, cells, strict=True)
            for name, array in arrays.items()
        }
    )
    return layer


def reordered(weight: NDArray[Any], given: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    """The blocks of rows of a weight, one for each gate, in another order.

    A gate that is not among the given ones is 0; one that is not wanted is left out.

    >>> reordered(numpy.array([1, 2, 3]), "rzn", "zrn")
    array([2, 1, 3])
    """
    blocks = dict(zip(given, numpy.split(weight, len(given)), strict=True))
    nothing = numpy.zeros_like(blocks[given[0]])
    return numpy.concatenate([blocks.get(gate, nothing) for gate in wanted])


def as_array(value: Any) -> NDArray[Any]:
    """A NumPy array of an array or a tensor of any library."""
    array: NDArray[Any] = mg.asarray(value).numpy()
    return array


def _options(cell: Cell) -> tuple[Any, ...]:
    """What a cell is, apart from the values of its weights and the number of its inputs."""
    names = ("hidden_size", "nonlinearity", *(attribute for _, attribute, _ in OPTIONS))
    return (*(getattr(cell, name, None) for name in names), cell.bias_ih is None)
