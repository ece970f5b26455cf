"""Modules with parameters, losses, and initial values; PyTorch's names."""

from minigrad.nn import init
from minigrad.nn.layers import Dropout, Embedding, Linear
from minigrad.nn.losses import cross_entropy
from minigrad.nn.module import Module, Parameter

__all__ = ["Dropout", "Embedding", "Linear", "Module", "Parameter", "cross_entropy", "init"]
