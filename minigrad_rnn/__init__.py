"""minigrad_rnn: recurrent networks, and everything that knows about time.

It stands on minigrad's public names alone. Backpropagation through time is the tape of an
unrolled loop, read backwards; truncating it is cutting the tape.
"""

from minigrad_rnn import datasets
from minigrad_rnn.cells import Cell, GRUCell, LSTMCell, RNNCell
from minigrad_rnn.clipping import clip_grad_norm_, clip_grad_value_
from minigrad_rnn.decoding import sample
from minigrad_rnn.layers import GRU, LSTM, RNN, Recurrent, unroll
from minigrad_rnn.sequences import Stream
from minigrad_rnn.truncation import TBPTT

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "TBPTT",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "Stream",
    "clip_grad_norm_",
    "clip_grad_value_",
    "datasets",
    "sample",
    "unroll",
]
