"""Gated recurrent units: with two gates, and with one."""

from __future__ import annotations

from typing import Any, Literal

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells.cell import Cell, State, added, linear


class GRUCell(Cell):
    """Gated recurrent unit, with gates in the order r, z, n.

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)      reset gate
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)      update gate
        n =    tanh(W_in x + b_in + r (W_hn h + b_hn))  candidate
        h' = (1 - z) n + z h

    y and the state are h, (batch, hidden_size). That is the reset after the recurrent product,
    as in PyTorch and cuDNN: Cho et al., Learning phrase representations using RNN
    encoder-decoder for statistical machine translation, 2014, in its first version. With
    ``reset="before"`` it is that of the published version:

        n =    tanh(W_in x + b_in + W_hn (r h) + b_hn)

    Layer normalisation is that of Ba, Kiros and Hinton, Layer normalization, 2016: both
    products, W_ih x and W_hh h, are normalised, in each the gates r and z together and the
    candidate n by itself, with a gain. What the paper adds to them are the biases.

    Args:
        reset: ``"after"`` or ``"before"`` the recurrent product.
        layer_norm: whether to normalise.
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`.

    Attributes:
        weight_ih, weight_hh, bias_ih, bias_hh: see :class:`Cell`, of three blocks.
        norm_ih, norm_hh: the layer normalisation, or ``None``.

    Raises ``ValueError`` for a size below 1, or another reset.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.GRUCell(3, 4, rng=0)
    >>> y, h = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape
    (1, 4)
    """

    gates = ("r", "z", "n")
    forget_gate = ("z", 1)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset: Literal["after", "before"] = "after",
        layer_norm: bool = False,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        if reset not in ("after", "before"):
            raise ValueError(
                f"reset is 'after' or 'before' the recurrent product of a GRU, not {reset!r}"
            )
        self.reset = reset
        super().__init__(input_size, hidden_size, bias, dtype=dtype, device=device, rng=rng)
        self.norm_ih = _BlockNorm(hidden_size, dtype, device) if layer_norm else None
        self.norm_hh = _BlockNorm(hidden_size, dtype, device) if layer_norm else None

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih,  and  + b_hh  unless r is to act on that"""
        after = self.reset == "after"
        bias = self.bias_ih if after else added(self.bias_ih, self.bias_hh)
        return linear(xs, self.weight_ih, bias, self.norm_ih)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """z and n from the projected input and h, and the new h."""
        gated = self._reset_after if self.reset == "after" else self._reset_before
        z, n = gated(projected, self.masked(state))
        h = n + z * (state - n)
        return h, h

    def _reset_after(self, projected: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z, and  n = tanh(x_n + r (W_hn h + b_hn))"""
        product = linear(h, self.weight_hh, self.bias_hh, self.norm_hh)
        x_r, x_z, x_n = mg.split(projected, 3, axis=-1)
        h_r, h_z, h_n = mg.split(product, 3, axis=-1)
        r = mg.sigmoid(x_r + h_r)
        z = mg.sigmoid(x_z + h_z)
        return z, mg.tanh(x_n + r * h_n)

    def _reset_before(self, projected: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z, and  n = tanh(x_n + W_hn (r h))"""
        norm = self.norm_hh
        weight_rz, weight_n = mg.split(self.weight_hh, [2 * self.hidden_size])
        x_rz, x_n = mg.split(projected, [2 * self.hidden_size], axis=-1)
        rz = mg.sigmoid(linear(h, weight_rz, x_rz, None if norm is None else norm.gates))
        r, z = mg.split(rz, 2, axis=-1)
        return z, mg.tanh(linear(r * h, weight_n, x_n, None if norm is None else norm.candidate))

    def extra_repr(self) -> str:
        """The sizes, and where the reset is."""
        return super().extra_repr() + (", reset='before'" if self.reset == "before" else "")


class _BlockNorm(nn.Module):
    """Layer normalisation of the gates r and z together, and of the candidate n by itself."""

    def __init__(self, hidden_size: int, dtype: Any, device: str | None) -> None:
        self.gates = nn.LayerNorm(2 * hidden_size, bias=False, dtype=dtype, device=device)
        self.candidate = nn.LayerNorm(hidden_size, bias=False, dtype=dtype, device=device)

    def forward(self, product: Tensor) -> Tensor:
        """(..., 3 hidden_size) -> the same shape"""
        gates, candidate = mg.split(product, self.gates.normalized_shape, axis=-1)
        return mg.concatenate([self.gates(gates), self.candidate(candidate)], axis=-1)


class MGUCell(Cell):
    """Minimal gated unit: a GRU whose one gate both resets and updates, in the order f, n.

        f = sigmoid(W_if x + b_if + W_hf h)     forget gate
        n =    tanh(W_in x + b_in + W_hn (f h)) candidate
        h' = (1 - f) h + f n

    y and the state are h, (batch, hidden_size). Zhou, Wu, Zhang and Zhou, Minimal gated unit
    for recurrent neural networks, 2016.

    Args:
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`.

    Attributes:
        weight_ih, weight_hh, bias_ih: see :class:`Cell`, of two blocks.

    Raises ``ValueError`` for a size below 1.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.MGUCell(3, 4, rng=0)
    >>> y, h = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape
    (1, 4)
    """

    gates = ("f", "n")
    forget_gate = ("f", -1)

    def parameter_shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """Those of every cell, with one bias."""
        return {**super().parameter_shapes(bias), "bias_hh": None}

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih"""
        return linear(xs, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """f and n from the projected input and h, and the new h."""
        h = self.masked(state)
        x_f, x_n = mg.split(projected, 2, axis=-1)
        weight_f, weight_n = mg.split(self.weight_hh, 2)
        f = mg.sigmoid(mg.linear(h, weight_f, x_f))
        n = mg.tanh(mg.linear(f * h, weight_n, x_n))
        h = state + f * (n - state)
        return h, h
