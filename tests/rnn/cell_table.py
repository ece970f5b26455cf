"""Every cell, with every option, and one step of it written in plain NumPy by its paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
import minigrad_rnn as rnn

Array = np.ndarray
#: Weights by name, x, and the parts of the state, to y and the parts of the new state.
Step = Callable[..., tuple[Array, ...]]

INPUTS, HIDDEN, BATCH = 3, 4, 2


@dataclass(frozen=True)
class Kind:
    """A cell's class, its step in NumPy, and its options."""

    cell_type: type[rnn.Cell]
    step: Step
    settings: dict[str, Any]

    def make(self, *, bias: bool = True, rng: Any = 0, dtype: str = "float64") -> Any:
        """A cell that is evaluated, all of its parameters random."""
        without: dict[str, Any] = {} if bias else {"bias": False}
        cell = self.cell_type(INPUTS, HIDDEN, dtype=dtype, rng=rng, **without, **self.settings)
        rng = np.random.default_rng(rng)
        for parameter in cell.parameters():
            drawn = 0.5 * rng.normal(size=parameter.shape) + 0.1
            parameter.rebind(mg.tensor(drawn.astype(dtype)))
        return cell.eval()


def sigmoid(a: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-a))


def relu(a: Array) -> Array:
    return np.where(a > 0.0, a, 0.0)


def normalised(a: Array, gain: Array, bias: Any = 0.0) -> Array:
    mean = a.sum(-1, keepdims=True) / a.shape[-1]
    variance = ((a - mean) ** 2).sum(-1, keepdims=True) / a.shape[-1]
    return (a - mean) / np.sqrt(variance + 1e-5) * gain + bias


def rows(w: dict[str, Array], name: str, gate: int, gates: int) -> Any:
    """The rows of one gate; 0 for a bias that there is not."""
    return np.split(w[name], gates)[gate] if name in w else 0.0


def elman(squash: Callable[[Array], Array]) -> Step:
    def step(w: dict[str, Array], x: Array, h: Array) -> tuple[Array, ...]:
        a = x @ w["weight_ih"].T + h @ w["weight_hh"].T
        h = squash(a + w.get("bias_ih", 0.0) + w.get("bias_hh", 0.0))
        return h, h

    return step


def independent(squash: Callable[[Array], Array]) -> Step:
    def step(w: dict[str, Array], x: Array, h: Array) -> tuple[Array, ...]:
        own_past = np.stack([w["weight_hh"][k] * h[:, k] for k in range(HIDDEN)], axis=1)
        h = squash(x @ w["weight_ih"].T + w.get("bias_ih", 0.0) + own_past)
        return h, h

    return step


def lstm(
    *,
    projected: bool = False,
    peepholes: str = "",
    coupled: bool = False,
    layer_norm: bool = False,
    zoneout_h: float = 0.0,
    zoneout_c: float = 0.0,
) -> Step:
    names = "igo" if coupled else "ifgo"

    def step(w: dict[str, Array], x: Array, h: Array, c: Array) -> tuple[Array, ...]:
        from_x, from_h = x @ w["weight_ih"].T, h @ w["weight_hh"].T
        if layer_norm:
            from_x = normalised(from_x, w["norm_ih.weight"])
            from_h = normalised(from_h, w["norm_hh.weight"])
        a = from_x + from_h + w.get("bias_ih", 0.0) + w.get("bias_hh", 0.0)
        gate = dict(zip(names, np.split(a, len(names), axis=-1), strict=True))

        def peep(name: str, memory: Array) -> Any:
            if not peepholes:
                return 0.0
            matrix = w[f"weight_c{name}"]
            return memory @ (np.diag(matrix) if peepholes == "diagonal" else matrix).T

        i = sigmoid(gate["i"] + peep("i", c))
        f = 1.0 - i if coupled else sigmoid(gate["f"] + peep("f", c))
        new_c = f * c + i * np.tanh(gate["g"])
        o = sigmoid(gate["o"] + peep("o", new_c))
        seen = new_c
        if layer_norm:
            seen = normalised(new_c, w["norm_c.weight"], w.get("norm_c.bias", 0.0))
        new_h = o * np.tanh(seen)
        if projected:
            new_h = new_h @ w["weight_hr"].T
        h = zoneout_h * h + (1.0 - zoneout_h) * new_h
        c = zoneout_c * c + (1.0 - zoneout_c) * new_c
        return h, h, c

    return step


def gru(reset: str, *, layer_norm: bool = False) -> Step:
    def step(w: dict[str, Array], x: Array, h: Array) -> tuple[Array, ...]:
        def affine(side: str, operand: Array, block: str) -> Array:
            """W a + b  of both gates or of the candidate, W a normalised."""
            own = slice(0, 2 * HIDDEN) if block == "gates" else slice(2 * HIDDEN, None)
            a = operand @ w[f"weight_{side}"][own].T
            if layer_norm:
                a = normalised(a, w[f"norm_{side}.{block}.weight"])
            return a + (w[f"bias_{side}"][own] if f"bias_{side}" in w else 0.0)

        gates = sigmoid(affine("ih", x, "gates") + affine("hh", h, "gates"))
        r, z = gates[:, :HIDDEN], gates[:, HIDDEN:]
        x_n = affine("ih", x, "candidate")
        if reset == "after":
            n = np.tanh(x_n + r * affine("hh", h, "candidate"))
        else:
            n = np.tanh(x_n + affine("hh", r * h, "candidate"))
        h = (1.0 - z) * n + z * h
        return h, h

    return step


def mgu(w: dict[str, Array], x: Array, h: Array) -> tuple[Array, ...]:
    def affine(k: int, hidden: Array) -> Any:
        both = np.concatenate([rows(w, "weight_hh", k, 2), rows(w, "weight_ih", k, 2)], axis=1)
        return np.concatenate([hidden, x], axis=1) @ both.T + rows(w, "bias_ih", k, 2)

    f = sigmoid(affine(0, h))
    h = (1.0 - f) * h + f * np.tanh(affine(1, f * h))
    return h, h


def min_gru(w: dict[str, Array], x: Array, h: Array) -> tuple[Array, ...]:
    z, n = (x @ rows(w, "weight_ih", k, 2).T + rows(w, "bias_ih", k, 2) for k in range(2))
    h = (1.0 - sigmoid(z)) * h + sigmoid(z) * n
    return h, h


def min_lstm(w: dict[str, Array], x: Array, h: Array) -> tuple[Array, ...]:
    f, i, n = (x @ rows(w, "weight_ih", k, 3).T + rows(w, "bias_ih", k, 3) for k in range(3))
    f, i = sigmoid(f), sigmoid(i)
    h = f / (f + i) * h + i / (f + i) * n
    return h, h


def lru(w: dict[str, Array], x: Array, re: Array, im: Array) -> tuple[Array, ...]:
    eigenvalue = np.exp(-np.exp(w["nu_log"]) + 1j * np.exp(w["theta_log"]))
    b, c = w["B_re"] + 1j * w["B_im"], w["C_re"] + 1j * w["C_im"]
    state = eigenvalue * (re + 1j * im) + np.exp(w["gamma_log"]) * (x @ b.T)
    return (state @ c.T).real + x @ w["D"].T, state.real, state.imag


ALL_LSTM: dict[str, Any] = {
    "peepholes": "full",
    "coupled": True,
    "layer_norm": True,
    "zoneout_h": 0.2,
    "zoneout_c": 0.3,
}

ONE_OPTION: dict[str, dict[str, Any]] = {
    "peepholes diagonal": {"peepholes": "diagonal"},
    "peepholes full": {"peepholes": "full"},
    "coupled": {"coupled": True},
    "layer_norm": {"layer_norm": True},
    "zoneout_h": {"zoneout_h": 0.3},
    "zoneout_c": {"zoneout_c": 0.3},
}

KINDS: dict[str, Kind] = {
    "tanh": Kind(rnn.RNNCell, elman(np.tanh), {}),
    "relu": Kind(rnn.RNNCell, elman(relu), {"nonlinearity": "relu"}),
    "indrnn relu": Kind(rnn.IndRNNCell, independent(relu), {}),
    "indrnn tanh": Kind(rnn.IndRNNCell, independent(np.tanh), {"nonlinearity": "tanh"}),
    "lstm": Kind(rnn.LSTMCell, lstm(), {}),
    "lstm projected": Kind(rnn.LSTMCell, lstm(projected=True), {"proj_size": 2}),
    **{f"lstm {name}": Kind(rnn.LSTMCell, lstm(**used), used) for name, used in ONE_OPTION.items()},
    "lstm with all": Kind(
        rnn.LSTMCell, lstm(projected=True, **ALL_LSTM), {"proj_size": 2, **ALL_LSTM}
    ),
    "gru": Kind(rnn.GRUCell, gru("after"), {}),
    "gru reset before": Kind(rnn.GRUCell, gru("before"), {"reset": "before"}),
    "gru layer_norm": Kind(rnn.GRUCell, gru("after", layer_norm=True), {"layer_norm": True}),
    "gru reset before layer_norm": Kind(
        rnn.GRUCell, gru("before", layer_norm=True), {"reset": "before", "layer_norm": True}
    ),
    "mgu": Kind(rnn.MGUCell, mgu, {}),
    "mingru": Kind(rnn.MinGRUCell, min_gru, {}),
    "minlstm": Kind(rnn.MinLSTMCell, min_lstm, {}),
    "lru": Kind(rnn.LRUCell, lru, {"output_size": 5}),
}


def parts_of(state: Any) -> tuple[Any, ...]:
    """The tensors of a state: two for an LSTM or an LRU, else one."""
    return state if isinstance(state, tuple) else (state,)


def as_state(parts: Any) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]


def random_state(cell: Any, rng: np.random.Generator) -> list[Array]:
    """The parts of a state for BATCH rows."""
    zeros = parts_of(cell.initial_state(BATCH))
    return [rng.normal(size=part.shape).astype(part.dtype) for part in zeros]


def weights_of(cell: Any) -> dict[str, Array]:
    return {name: value.numpy() for name, value in cell.state_dict().items()}
