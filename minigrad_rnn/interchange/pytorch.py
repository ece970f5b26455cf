"""PyTorch's layout, which is this package's own: only names have to be found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from minigrad_rnn.cells import Cell, LSTMCell, RNNCell
from minigrad_rnn.interchange.stacks import as_array, cell_type_of, cells_of, layer_of, weights_of
from minigrad_rnn.layers import Recurrent

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def to_pytorch(layer: Recurrent, prefix: str = "") -> dict[str, NDArray[Any]]:
    """The ``state_dict`` of the ``torch.nn.RNN``, ``LSTM`` or ``GRU`` that computes the same.

    Args:
        layer: an RNN, LSTM or GRU.
        prefix: what PyTorch's names begin with, such as ``"encoder."`` for a layer that is the
            attribute ``encoder`` of a bigger model.

    Returns arrays by name, for ``mg.save`` or, each through ``torch.from_numpy``, for
    ``load_state_dict``.

    Raises:
        TypeError: if it is not such a layer.
        ValueError: if it has an option that PyTorch does not have.

    >>> import minigrad_rnn as rnn
    >>> state = rnn.interchange.to_pytorch(rnn.GRU(3, 4, rng=0), prefix="encoder.")
    >>> for name, array in state.items():
    ...     print(name, array.shape)
    encoder.weight_ih_l0 (12, 3)
    encoder.weight_hh_l0 (12, 4)
    encoder.bias_ih_l0 (12,)
    encoder.bias_hh_l0 (12,)
    """
    has = {"proj_size": range(1 << 31), "outputs": ("last", "states")}
    return {
        prefix + name + cell.suffix: array
        for cells in cells_of(layer, "PyTorch", has)
        for cell in cells
        for name, array in weights_of(cell, cell.gates).items()
    }


def from_pytorch(
    state: Mapping[str, Any],
    prefix: str = "",
    *,
    nonlinearity: Literal["tanh", "relu"] = "tanh",
    batch_first: bool = False,
    device: str | None = None,
) -> Recurrent:
    """The RNN, LSTM or GRU of a ``state_dict``: kind, sizes and directions are read off it.

    For a layer that exists already, ``layer.load_state_dict(state)`` does the same.

    Args:
        state: arrays or tensors by name, as ``torch_layer.state_dict()`` or ``mg.load`` gives
            them.
        prefix: what the names of this layer begin with; all other names are passed over.
        nonlinearity: that of an RNN, which the weights do not tell.
        batch_first: whether x and y are (batch, time, features), which they do not tell either.
        device: where the parameters go.

    Raises ``ValueError`` if names are missing or unknown, or shapes do not fit together.

    >>> import minigrad_rnn as rnn
    >>> layer = rnn.LSTM(3, 4, num_layers=2, rng=0)
    >>> rnn.interchange.from_pytorch(layer.state_dict())
    LSTM(3, 4, num_layers=2)
    """
    weights = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
    stack: list[list[dict[str, NDArray[Any]]]] = []
    while any(f"{name}_l{len(stack)}" in weights for name in NAMES):
        cells: list[dict[str, NDArray[Any]]] = []
        for suffix in (f"_l{len(stack)}", f"_l{len(stack)}_reverse"):
            cell = {n: as_array(weights.pop(n + suffix)) for n in NAMES if n + suffix in weights}
            missing = {"weight_ih", "weight_hh"} - cell.keys()
            if cell and missing:
                raise ValueError(f"{prefix}{min(missing)}{suffix} is missing")
            cells += [cell] if cell else []
        stack.append(cells)
    if weights or not stack:
        raise ValueError(
            f"a recurrent layer has the names {prefix}weight_ih_l0, {prefix}weight_hh_l0, ..., and "
            f"nothing else; these are {', '.join(sorted(weights)) or 'none'} besides: say with "
            "prefix='...' where the layer is"
        )
    bottom = stack[0][0]
    options: dict[str, Any] = {"batch_first": batch_first, "device": device}
    cell_type: type[Cell] = LSTMCell
    if "weight_hr" in bottom:
        options["proj_size"] = len(bottom["weight_hr"])
    else:
        cell_type = cell_type_of(bottom["weight_hh"])
    if cell_type is RNNCell:
        options["nonlinearity"] = nonlinearity
    return layer_of(cell_type, stack, cell_type.gates, **options)
