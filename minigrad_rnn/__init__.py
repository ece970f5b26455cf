"""minigrad_rnn: recurrent networks, and everything that knows about time.

It stands on minigrad's public names alone. Backpropagation through time is the tape of an
unrolled loop, read backwards; truncating it is cutting the tape.
"""

from minigrad_rnn import datasets, features, init, interchange, metrics, testing
from minigrad_rnn.attention import AdditiveAttention, AttentionCell, DotAttention
from minigrad_rnn.cells import (
    Cell,
    GRUCell,
    IndRNNCell,
    LRUCell,
    LSTMCell,
    MGUCell,
    MinGRUCell,
    MinLSTMCell,
    RNNCell,
)
from minigrad_rnn.clipping import (
    AutoClip,
    ClipLog,
    ClipRecord,
    NormClipper,
    ZClip,
    clip_grad_agc_,
    clip_grad_norm_,
    clip_grad_norm_per_tensor_,
    clip_grad_value_,
    clip_gradient,
)
from minigrad_rnn.ctc import Labelling, ctc_beam_search, ctc_greedy_decode, ctc_loss
from minigrad_rnn.decoding import Hypothesis, beam_search, sample
from minigrad_rnn.diagnostics import check_all_received_grad
from minigrad_rnn.forecasting import (
    Scaler,
    Windows,
    conformal_margin,
    fill_forward,
    fill_missing,
)
from minigrad_rnn.layers import GRU, LSTM, RNN, Recurrent
from minigrad_rnn.sequences import (
    Batches,
    Stream,
    bucket_by_length,
    lengths_to_mask,
    mask_to_lengths,
    pad_sequences,
    random_window,
    shift,
    unpad_sequences,
)
from minigrad_rnn.states import detach_state, reset_state
from minigrad_rnn.subwords import BytePairEncoding
from minigrad_rnn.truncation import TBPTT
from minigrad_rnn.unrolling import unroll

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "TBPTT",
    "AdditiveAttention",
    "AttentionCell",
    "AutoClip",
    "Batches",
    "BytePairEncoding",
    "Cell",
    "ClipLog",
    "ClipRecord",
    "DotAttention",
    "GRUCell",
    "Hypothesis",
    "IndRNNCell",
    "LRUCell",
    "LSTMCell",
    "Labelling",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "NormClipper",
    "RNNCell",
    "Recurrent",
    "Scaler",
    "Stream",
    "Windows",
    "ZClip",
    "beam_search",
    "bucket_by_length",
    "check_all_received_grad",
    "clip_grad_agc_",
    "clip_grad_norm_",
    "clip_grad_norm_per_tensor_",
    "clip_grad_value_",
    "clip_gradient",
    "conformal_margin",
    "ctc_beam_search",
    "ctc_greedy_decode",
    "ctc_loss",
    "datasets",
    "detach_state",
    "features",
    "fill_forward",
    "fill_missing",
    "init",
    "interchange",
    "lengths_to_mask",
    "mask_to_lengths",
    "metrics",
    "pad_sequences",
    "random_window",
    "reset_state",
    "sample",
    "shift",
    "testing",
    "unpad_sequences",
    "unroll",
]
