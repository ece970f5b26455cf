"""Modules with parameters, losses, and initial values; PyTorch's names."""

from minigrad.nn import init
from minigrad.nn.containers import ModuleList, Sequential
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear
from minigrad.nn.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    mse_loss,
    nll_loss,
    quantile_loss,
)
from minigrad.nn.module import Module, Parameter

__all__ = [
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "Sequential",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "init",
    "mse_loss",
    "nll_loss",
    "quantile_loss",
]
