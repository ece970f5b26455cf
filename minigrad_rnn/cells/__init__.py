"""Cells: one step of a recurrence, in plain tensor code.

A cell maps ``(x, state)`` to ``(y, state)``; any function or module that does so can be
unrolled. The RNN, LSTM and GRU cells have PyTorch's parameters, shapes, gate order and
initial values, so weights move between the two by name. A step is written in two parts:
``project`` is what it computes from its input alone, and is done for all time steps at once
where the whole sequence is known; ``step`` is what it computes from that and the state.
"""

from minigrad_rnn.cells.cell import Cell, State
from minigrad_rnn.cells.elman import IndRNNCell, RNNCell
from minigrad_rnn.cells.gru import GRUCell, MGUCell
from minigrad_rnn.cells.lru import LRUCell
from minigrad_rnn.cells.lstm import LSTMCell
from minigrad_rnn.cells.minimal import MinGRUCell, MinLSTMCell

__all__ = [
    "Cell",
    "GRUCell",
    "IndRNNCell",
    "LRUCell",
    "LSTMCell",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "RNNCell",
    "State",
]
