"""Long short-term memory, with what the literature has added to it."""

from __future__ import annotations

from typing import Any, Literal

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells.cell import Cell, State, added, linear


class LSTMCell(Cell):
    """Long short-term memory, with gates in the order i, f, g, o.

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)      input gate
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)      forget gate
        g =    tanh(W_ig x + b_ig + W_hg h + b_hg)      candidate
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)      output gate
        c' = f c + i g
        h' = o tanh(c')

    The state is the tuple (h, c), each (batch, hidden_size); y is h.
    Hochreiter and Schmidhuber, Long short-term memory, 1997; with the forget gate of Gers,
    Schmidhuber and Cummins, Learning to forget, 2000.

    What the options add, each to any of the others:

    proj_size
        h' = W_hr (o tanh(c')),  of that many features. Sak, Senior and Beaufays, Long
        short-term memory recurrent neural network architectures for large scale acoustic
        modeling, 2014.
    peepholes
        the gates see the memory:  W_ci c  is added inside i,  W_cf c  inside f,  and
        W_co c'  inside o. The W are ``"diagonal"`` (Gers and Schmidhuber, Recurrent nets that
        time and count, 2000) or ``"full"``.
    coupled
        f = 1 - i,  so there is no forget gate, and the blocks of the weights are i, g, o.
        Greff et al., LSTM: a search space odyssey, 2017.
    layer_norm
        LN(W_ih x), LN(W_hh h) and  h' = o tanh(LN(c')),  each LN with a gain of its own. What
        the first two add are the biases that are there already. Ba, Kiros and Hinton, Layer
        normalization, 2016.
    zoneout_h, zoneout_c
        in training, each element of h' or c' is with that probability the old one; otherwise
        it is the mean of old and new with these weights. h' is computed from c' before that.
        Krueger et al., Zoneout: regularizing RNNs by randomly preserving hidden activations,
        2017.

    Args:
        proj_size: below hidden_size; 0 for no projection.
        peepholes: ``"diagonal"``, ``"full"``, or ``None``.
        coupled, layer_norm: whether to.
        zoneout_h, zoneout_c: probabilities, in [0, 1).
        input_size, hidden_size, bias, dtype, device, rng: see :class:`Cell`; rng also draws
            what zoneout keeps.

    Attributes:
        weight_ih: (4 hidden_size, input_size); 3 if coupled, here and below.
        weight_hh: (4 hidden_size, output_size), where output_size is that of h.
        bias_ih, bias_hh: (4 hidden_size,), or ``None``.
        weight_hr: (proj_size, hidden_size), or ``None``.
        weight_ci, weight_cf, weight_co: (hidden_size,), (hidden_size, hidden_size), or ``None``.
        norm_ih, norm_hh, norm_c: :class:`minigrad.nn.LayerNorm`, or ``None``.
        zoneout_h, zoneout_c: :class:`minigrad.nn.Dropout` of what is new, or ``None``.

    Raises ``ValueError`` for a size below 1, or an option that is not one of these.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.LSTMCell(3, 4, rng=0)
    >>> y, (h, c) = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape, c.shape
    ((1, 4), (1, 4))
    >>> cell = rnn.LSTMCell(3, 4, proj_size=2, peepholes="diagonal", layer_norm=True, rng=0)
    >>> y, (h, c) = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape, c.shape
    ((1, 2), (1, 4))
    """

    gates: tuple[str, ...] = ("i", "f", "g", "o")
    forget_gate = ("f", 1)

    weight_hr: Tensor | None
    weight_ci: Tensor | None
    weight_cf: Tensor | None
    weight_co: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        proj_size: int = 0,
        peepholes: Literal["diagonal", "full"] | None = None,
        coupled: bool = False,
        layer_norm: bool = False,
        zoneout_h: float = 0.0,
        zoneout_c: float = 0.0,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        if proj_size and not 0 < proj_size < hidden_size:
            raise ValueError(
                f"proj_size is from 1 to hidden_size - 1 = {hidden_size - 1}, or 0 for no "
                f"projection; not {proj_size}"
            )
        if peepholes not in ("diagonal", "full", None):
            raise ValueError(f"peepholes is 'diagonal', 'full' or None, not {peepholes!r}")
        for name, p in (("zoneout_h", zoneout_h), ("zoneout_c", zoneout_c)):
            if not 0.0 <= p < 1.0:
                raise ValueError(f"{name} is a probability in [0, 1), not {p}")
        rng = nn.init.generator(rng)
        made = {"dtype": dtype, "device": device}
        self.proj_size = proj_size
        self.peepholes = peepholes
        self.coupled = coupled
        if coupled:
            self.gates, self.forget_gate = ("i", "g", "o"), ("i", -1)
        super().__init__(
            input_size, hidden_size, bias, output_size=proj_size or hidden_size, rng=rng, **made
        )
        rows = len(self.gates) * hidden_size
        self.norm_ih = nn.LayerNorm(rows, bias=False, **made) if layer_norm else None
        self.norm_hh = nn.LayerNorm(rows, bias=False, **made) if layer_norm else None
        self.norm_c = nn.LayerNorm(hidden_size, bias=bias, **made) if layer_norm else None
        self.zoneout_h = nn.Dropout(zoneout_h, rng=rng) if zoneout_h else None
        self.zoneout_c = nn.Dropout(zoneout_c, rng=rng) if zoneout_c else None

    def parameter_shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """Those of every cell, the projection, and the peepholes."""
        n = self.hidden_size
        peephole = {"diagonal": (n,), "full": (n, n), None: None}[self.peepholes]
        return {
            **super().parameter_shapes(bias),
            "weight_hr": (self.proj_size, n) if self.proj_size else None,
            "weight_ci": peephole,
            "weight_cf": None if self.coupled else peephole,
            "weight_co": peephole,
        }

    @property
    def state_sizes(self) -> Any:
        """Those of h and c."""
        return self.output_size, self.hidden_size

    def project(self, xs: Tensor) -> Tensor:
        """W_ih x + b_ih + b_hh"""
        return linear(xs, self.weight_ih, added(self.bias_ih, self.bias_hh), self.norm_ih)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """The gates from projected + W_hh h, and the new h and c."""
        h, c = state
        all_gates = linear(self.masked(h), self.weight_hh, projected, self.norm_hh)
        *gates, o = mg.split(all_gates, len(self.gates), axis=-1)
        new_c = self._coupled_memory(c, *gates) if self.coupled else self._memory(c, *gates)
        seen = new_c if self.norm_c is None else self.norm_c(new_c)
        new_h = mg.sigmoid(_peeping(o, self.weight_co, new_c)) * mg.tanh(seen)
        if self.weight_hr is not None:
            new_h = new_h @ self.weight_hr.T
        h, c = _zoned_out(self.zoneout_h, h, new_h), _zoned_out(self.zoneout_c, c, new_c)
        return h, (h, c)

    def _memory(self, c: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """f c + i g"""
        i = mg.sigmoid(_peeping(i, self.weight_ci, c))
        f = mg.sigmoid(_peeping(f, self.weight_cf, c))
        return f * c + i * mg.tanh(g)

    def _coupled_memory(self, c: Tensor, i: Tensor, g: Tensor) -> Tensor:
        """(1 - i) c + i g"""
        i = mg.sigmoid(_peeping(i, self.weight_ci, c))
        return c + i * (mg.tanh(g) - c)

    def extra_repr(self) -> str:
        """The sizes, and the options that are used."""
        text = super().extra_repr()
        text += f", proj_size={self.proj_size}" if self.proj_size else ""
        text += f", peepholes={self.peepholes!r}" if self.peepholes else ""
        return text + (", coupled=True" if self.coupled else "")


def _peeping(gate: Tensor, weight: Tensor | None, c: Tensor) -> Tensor:
    """gate + W c,  where W is a matrix, the diagonal of one, or missing."""
    if weight is None:
        return gate
    return gate + weight * c if weight.ndim == 1 else mg.linear(c, weight, gate)


def _zoned_out(dropout: nn.Dropout | None, old: Tensor, new: Tensor) -> Tensor:
    """new, but with probability p old; outside training, what is to be expected of that.

    Dropout of  new - old  divides what it keeps by 1 - p, and outside training does nothing.
    """
    return new if dropout is None else old + (1.0 - dropout.p) * dropout(new - old)
