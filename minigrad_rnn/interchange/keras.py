"""Keras' layout: kernels transposed, one bias for most, and a GRU's gates in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from minigrad_rnn.cells import Cell, GRUCell, LSTMCell, RNNCell
from minigrad_rnn.interchange.stacks import as_array, cell_type_of, cells_of, layer_of, weights_of
from minigrad_rnn.layers import Recurrent

#: The gates along the kernels' last axis; Keras' names for an LSTM's g and a GRU's n are c and h.
ORDER: dict[type[Cell], str] = {RNNCell: "h", LSTMCell: "ifgo", GRUCell: "zrn"}


def to_keras(layer: Recurrent) -> list[list[NDArray[Any]]]:
    """The weights of a layer as Keras' ``SimpleRNN``, ``LSTM`` and ``GRU`` hold them.

    Args:
        layer: an RNN, LSTM or GRU.

    Returns a list with what ``set_weights`` takes for every Keras layer, from the bottom of the
    stack to the top: kernel (input_size, gates * hidden_size), recurrent kernel (hidden_size,
    gates * hidden_size), and the bias, if there is one. It is (gates * hidden_size,), the sum of
    the two that PyTorch has; for a GRU with ``reset="after"`` (in Keras, ``reset_after=True``) it
    is (2, 3 * hidden_size) and holds both. For ``Bidirectional(...)`` those of the reverse layer
    follow.

    Raises:
        TypeError: if it is not such a layer.
        ValueError: if it has an option that Keras does not have.

    >>> import minigrad_rnn as rnn
    >>> for weights in rnn.interchange.to_keras(rnn.GRU(3, 4, num_layers=2, rng=0)):
    ...     print([array.shape for array in weights])
    [(3, 12), (4, 12), (2, 12)]
    [(4, 12), (4, 12), (2, 12)]
    """
    has = {"reset": ("before",), "outputs": ("last", "states")}
    return [
        [array for cell in cells for array in _cell_to_keras(cell)]
        for cells in cells_of(layer, "Keras", has)
    ]


def from_keras(
    weights: Sequence[Sequence[Any]],
    *,
    nonlinearity: Literal["tanh", "relu"] = "tanh",
    reset_after: bool | None = None,
    batch_first: bool = True,
    device: str | None = None,
) -> Recurrent:
    """The RNN, LSTM or GRU that computes what Keras layers with these weights compute.

    The kind and the sizes are read off the shapes. Keras' default activations are taken for
    granted (tanh, and sigmoid for the gates), and ``merge_mode="concat"`` for ``Bidirectional``:
    weights do not tell. A single bias becomes ``bias_ih``, and ``bias_hh`` is 0.

    Args:
        weights: ``[layer.get_weights() for layer in ...]``, from the bottom of the stack to the
            top; one list of arrays, see :func:`to_keras`, for every Keras layer.
        nonlinearity: the activation of a ``SimpleRNN``.
        reset_after: that of a GRU; only one without bias does not tell.
        batch_first: whether x and y are (batch, time, features), as in Keras.
        device: where the parameters go.

    Raises:
        TypeError: if ``weights`` is the list of one Keras layer, instead of a list of such.
        ValueError: if shapes do not fit together, or contradict ``reset_after``.

    >>> import minigrad_rnn as rnn
    >>> layer = rnn.GRU(3, 4, batch_first=True, rng=0)
    >>> rnn.interchange.from_keras(rnn.interchange.to_keras(layer))
    GRU(3, 4, num_layers=1, batch_first=True)
    """
    if not weights or any(getattr(arrays, "ndim", 0) for arrays in weights):
        raise TypeError(
            "weights is a list with the weights of every Keras layer: for one layer, write "
            "from_keras([layer.get_weights()])"
        )
    stack = [_split_directions([as_array(array) for array in arrays]) for arrays in weights]
    bottom = stack[0][0]
    cell_type = cell_type_of(bottom[1].T)
    options: dict[str, Any] = {"batch_first": batch_first, "device": device}
    if cell_type is RNNCell:
        options["nonlinearity"] = nonlinearity
    if cell_type is GRUCell:
        options["reset"] = _reset_of(bottom[2] if len(bottom) == 3 else None, reset_after)
    named = [[_cell_from_keras(arrays) for arrays in directions] for directions in stack]
    return layer_of(cell_type, named, ORDER[cell_type], **options)


def _cell_to_keras(cell: Cell) -> list[NDArray[Any]]:
    weights = weights_of(cell, ORDER[type(cell)])
    kernels = [weights["weight_ih"].T, weights["weight_hh"].T]
    if "bias_ih" not in weights:
        return kernels
    both = numpy.stack([weights["bias_ih"], weights["bias_hh"]])
    separate = isinstance(cell, GRUCell) and cell.reset == "after"
    return [*kernels, both if separate else both.sum(0)]


def _cell_from_keras(arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    weights = {"weight_ih": arrays[0].T, "weight_hh": arrays[1].T}
    if len(arrays) == 3:
        bias = arrays[2]
        both = bias if bias.ndim == 2 else numpy.stack([bias, numpy.zeros_like(bias)])
        weights["bias_ih"], weights["bias_hh"] = both
    return weights


def _split_directions(arrays: list[NDArray[Any]]) -> list[list[NDArray[Any]]]:
    """The weights of one Keras layer, by direction; ``ValueError`` if they are not such."""
    half = len(arrays) // 2
    directions = [arrays[:half], arrays[half:]] if len(arrays) in (4, 6) else [arrays]
    for one in directions:
        columns = one[0].shape[-1:] if one else ()
        fits = (
            len(one) in (2, 3)
            and all(kernel.ndim == 2 and kernel.shape[1:] == columns for kernel in one[:2])
            and all(bias.shape in (columns, (2, *columns)) for bias in one[2:])
        )
        if not fits:
            raise ValueError(
                "a Keras layer has a kernel (input_size, n), a recurrent kernel (units, n) and "
                "perhaps a bias (n,) or (2, n), and Bidirectional twice that; these are "
                f"{[array.shape for array in arrays]}"
            )
    return directions


def _reset_of(bias: NDArray[Any] | None, reset_after: bool | None) -> Literal["before", "after"]:
    """Where the reset gate comes, by the bias if there is one."""
    if bias is not None:
        told = bias.ndim == 2
        if reset_after not in (None, told):
            raise ValueError(
                f"a bias of shape {bias.shape} is that of a GRU with reset_after={told}"
            )
    elif reset_after is not None:
        told = reset_after
    else:
        raise ValueError(
            "the weights of a GRU without bias do not tell whether its reset gate comes after the "
            "recurrent product: say reset_after=True, as Keras does by default, or False"
        )
    return "after" if told else "before"
