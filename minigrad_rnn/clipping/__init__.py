"""Gradient clipping: bounding the step that an exploding gradient would take.

Between the backward pass and the optimizer's step, of the gradients of parameters; or on the
way back through time, at every step. docs/clipping.md compares the methods.
"""

from minigrad_rnn.clipping.adaptive import AutoClip, NormClipper, ZClip, clip_grad_agc_
from minigrad_rnn.clipping.fixed import (
    clip_grad_norm_,
    clip_grad_norm_per_tensor_,
    clip_grad_value_,
)
from minigrad_rnn.clipping.gradients import NonFinite
from minigrad_rnn.clipping.log import ClipLog, ClipRecord
from minigrad_rnn.clipping.through_time import clip_gradient

__all__ = [
    "AutoClip",
    "ClipLog",
    "ClipRecord",
    "NonFinite",
    "NormClipper",
    "ZClip",
    "clip_grad_agc_",
    "clip_grad_norm_",
    "clip_grad_norm_per_tensor_",
    "clip_grad_value_",
    "clip_gradient",
]
