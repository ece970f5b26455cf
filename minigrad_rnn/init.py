"""Initial values of recurrent weights, as the literature has them.

Each function gives new values to a cell, or to every cell inside a layer or another module,
and returns it. Parameters are given new arrays and stay the same parameters, so an optimizer
made before is still theirs. A function that does not suit one of the cells raises
``ValueError`` and changes nothing. ``rng`` is a generator or a seed.

>>> import minigrad_rnn as rnn
>>> layer = rnn.LSTM(3, 4, num_layers=2, rng=0)
>>> layer is rnn.init.chrono_(rnn.init.orthogonal_(layer, rng=1), t_max=100, rng=2)
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy

import minigrad as mg
from minigrad import nn
from minigrad_rnn.cells import Cell, GRUCell, LSTMCell, RNNCell
from minigrad_rnn.cells.cell import assign, fill

M = TypeVar("M", bound=nn.Module)


def pytorch_(module: M, *, rng: Any = None) -> M:
    """What PyTorch gives its RNN, LSTM and GRU: all from U(-k, k) with k = 1 / sqrt(hidden_size).

    It is what the constructors here do. The gains of layer normalisation become 1.

    Raises ``ValueError`` for a cell of another kind.

    >>> import minigrad_rnn as rnn
    >>> abs(rnn.init.pytorch_(rnn.GRUCell(3, 4), rng=0).weight_hh.numpy()).max() < 0.5
    np.True_
    """
    rng = nn.init.generator(rng)
    for cell in _cells(module, _in_frameworks, "default in PyTorch"):
        cell.reset_parameters(rng)
    return module


def keras_(module: M, *, rng: Any = None) -> M:
    """What Keras gives its SimpleRNN, LSTM and GRU.

    weight_ih is Glorot uniform and weight_hh is orthogonal, each as one matrix of all gates;
    the biases are 0, and that of an LSTM's forget gate is 1. What Keras does not have
    (projection, peepholes, layer normalisation) is as :func:`pytorch_` makes it.

    Raises ``ValueError`` for a cell of another kind.

    >>> import minigrad_rnn as rnn
    >>> rnn.init.keras_(rnn.LSTMCell(3, 2), rng=0).bias_ih
    Parameter([0., 0., 1., 1., 0., 0., 0., 0.])
    """
    rng = nn.init.generator(rng)
    for cell in _cells(module, _in_frameworks, "default in Keras"):
        cell.reset_parameters(rng)
        fill(cell.weight_ih, nn.init.glorot_uniform, rng=rng)
        fill(cell.weight_hh, nn.init.orthogonal, rng=rng)
        fill(cell.bias_ih, nn.init.zeros)
        fill(cell.bias_hh, nn.init.zeros)
        if isinstance(cell, LSTMCell) and cell.bias_ih is not None:
            _set_forget_bias(cell, 1.0)
    return module


def orthogonal_(module: M, gain: float = 1.0, *, rng: Any = None) -> M:
    """Make weight_hh orthogonal, times ``gain``: each gate's block is such a matrix of its own.

    Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks, 2014.

    Raises ``ValueError`` for a cell without a recurrent matrix.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.init.orthogonal_(rnn.GRUCell(1, 2, dtype="float64"), rng=0)
    >>> [abs(w @ w.T).sum().item().__round__(12) for w in mg.split(cell.weight_hh, 3)]
    [2.0, 2.0, 2.0]
    """
    rng = nn.init.generator(rng)
    for cell in _cells(module, _has_recurrent_matrix, "recurrent matrix"):
        weight = cell.weight_hh
        block = (cell.hidden_size, weight.shape[1])
        blocks = [nn.init.orthogonal(block, gain, rng=rng, dtype=weight.dtype) for _ in cell.gates]
        assign(weight, mg.concatenate(blocks))
    return module


def identity_(module: M, scale: float = 1.0) -> M:
    """Make the weight_hh of RNN cells ``scale`` times the identity, and their biases 0.

    With relu that is the IRNN: Le, Jaitly and Hinton, A simple way to initialize recurrent
    networks of rectified linear units, 2015. There the input weights are N(0, 0.001^2); here
    they stay as they are.

    Raises ``ValueError`` for a cell of another kind.

    >>> import minigrad_rnn as rnn
    >>> rnn.init.identity_(rnn.RNNCell(3, 2, nonlinearity="relu"), scale=0.5).weight_hh
    Parameter([[0.5, 0. ],
               [0. , 0.5]])
    """
    for cell in _cells(module, lambda cell: isinstance(cell, RNNCell), "single square weight_hh"):
        fill(cell.weight_hh, nn.init.identity, scale)
        fill(cell.bias_ih, nn.init.zeros)
        fill(cell.bias_hh, nn.init.zeros)
    return module


def forget_bias_(module: M, value: float = 1.0) -> M:
    """Make the bias of what keeps the memory ``value``, so that cells begin by remembering.

    Where there are two biases their sum is ``value``: bias_hh becomes 0. It is that of f in an
    LSTM and of z in a GRU; where a gate lets new values in and so forgets (i of a coupled LSTM,
    f of an MGU, z of a minGRU) it is ``-value``.

    Gers, Schmidhuber and Cummins, Learning to forget, 2000; Jozefowicz, Zaremba and Sutskever,
    An empirical exploration of recurrent network architectures, 2015.

    Raises ``ValueError`` for a cell without such a gate, or without a bias.

    >>> import minigrad_rnn as rnn
    >>> cell = rnn.init.forget_bias_(rnn.LSTMCell(3, 1), 1.0)
    >>> cell.bias_ih[1].item(), cell.bias_hh[1].item()
    (1.0, 0.0)
    """
    for cell in _cells(module, _has_forget_bias, "forget gate with a bias"):
        _set_forget_bias(cell, value)
    return module


def chrono_(module: M, t_max: float, *, rng: Any = None) -> M:
    """Let the cells remember for times spread between 1 and ``t_max`` steps.

        b_f = log(u)  with u from U(1, t_max - 1),   b_i = -b_f

    The biases are those of :func:`forget_bias_`, with b_i where there is an input gate besides.
    Tallec and Ollivier, Can recurrent neural networks warp time?, 2018.

    Args:
        t_max: the longest dependency to expect, in steps; above 2.

    Raises ``ValueError`` for a smaller t_max, or a cell without such a gate or bias.

    >>> import minigrad_rnn as rnn
    >>> cell = rnn.init.chrono_(rnn.LSTMCell(3, 1), t_max=3, rng=0)
    >>> cell.bias_ih[0] == -cell.bias_ih[1]
    tensor(True)
    """
    if not t_max > 2:
        raise ValueError(f"t_max is a number of steps above 2, not {t_max}")
    rng = nn.init.generator(rng)
    for cell in _cells(module, _has_forget_bias, "forget gate with a bias"):
        bias = numpy.log(rng.uniform(1.0, t_max - 1.0, cell.hidden_size))
        _set_forget_bias(cell, bias)
        if "f" in cell.gates and "i" in cell.gates:
            _set_bias(cell, "i", -bias)
    return module


def _cells(module: nn.Module, suits: Callable[[Cell], bool], needed: str) -> list[Cell]:
    """The cells in the module; ``ValueError`` if there are none, or one does not suit."""
    cells = [found for found in module.modules() if isinstance(found, Cell)]
    if not cells:
        raise ValueError(f"there is no cell in this {type(module).__name__}")
    for cell in cells:
        if not suits(cell):
            raise ValueError(f"{type(cell).__name__} has no {needed}: {cell!r}")
    return cells


def _in_frameworks(cell: Cell) -> bool:
    return isinstance(cell, RNNCell | LSTMCell | GRUCell)


def _has_recurrent_matrix(cell: Cell) -> bool:
    return getattr(getattr(cell, "weight_hh", None), "ndim", 0) == 2


def _has_forget_bias(cell: Cell) -> bool:
    return cell.forget_gate is not None and cell.bias_ih is not None


def _set_forget_bias(cell: Cell, value: Any) -> None:
    """Make the total bias of the forget gate ``value``, or the negative of it by its sign."""
    assert cell.forget_gate is not None
    gate, sign = cell.forget_gate
    _set_bias(cell, gate, sign * value)


def _set_bias(cell: Cell, gate: str, value: Any) -> None:
    """Make the total bias of one gate ``value``: all of it in bias_ih, none in bias_hh."""
    start = cell.gates.index(gate) * cell.hidden_size
    for bias, part in ((cell.bias_ih, value), (cell.bias_hh, 0.0)):
        if bias is not None:
            values = bias.numpy().copy()
            values[start : start + cell.hidden_size] = part
            assign(bias, values)
