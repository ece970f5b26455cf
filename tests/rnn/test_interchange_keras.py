"""Keras' weights: its documented equations in a loop, Keras itself where installed, and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn

INPUTS, HIDDEN, BATCH, TIME = 3, 4, 2, 5

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (rnn.RNN, {}),
    "relu": (rnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (rnn.LSTM, {}),
    "gru, reset after": (rnn.GRU, {}),
    "gru, reset before": (rnn.GRU, {"reset": "before"}),
}

#: What the weights do not tell.
TOLD: dict[str, dict[str, Any]] = {
    "relu": {"nonlinearity": "relu"},
    "gru, reset after": {"reset_after": True},
    "gru, reset before": {"reset_after": False},
}

every_kind = pytest.mark.parametrize("kind", KINDS)
one_and_two_directions = pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def keras_loop(kind: str, weights: Sequence[np.ndarray], xs: np.ndarray) -> np.ndarray:
    """What Keras documents that one layer computes: xs and the result are (batch, time, ...)."""
    kernel, recurrent = weights[:2]
    bias = weights[2] if len(weights) == 3 else np.zeros(kernel.shape[1])
    h = c = np.zeros((len(xs), recurrent.shape[0]))
    ys = []
    for x in xs.swapaxes(0, 1):
        if kind in ("rnn", "relu"):
            activation = np.tanh if kind == "rnn" else lambda v: np.maximum(v, 0.0)
            h = activation(x @ kernel + h @ recurrent + bias)
        elif kind == "lstm":
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
            x_z, x_r, x_h = np.split(x @ kernel + input_bias, 3, axis=1)
            h_z, h_r, h_h = np.split(h @ recurrent + recurrent_bias, 3, axis=1)
            z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
            if kind == "gru, reset after":
                new = np.tanh(x_h + r * h_h)
            else:
                new = np.tanh(x_h + (r * h) @ np.split(recurrent, 3, axis=1)[2])
            h = z * h + (1.0 - z) * new
        ys.append(h)
    return np.stack(ys, axis=1)


def keras_stack(kind: str, stack: Sequence[Any], xs: np.ndarray, both: bool) -> np.ndarray:
    for weights in stack:
        half = len(weights) // 2
        if both:
            backward = keras_loop(kind, weights[half:], xs[:, ::-1])[:, ::-1]
            xs = np.concatenate([keras_loop(kind, weights[:half], xs), backward], axis=-1)
        else:
            xs = keras_loop(kind, weights, xs)
    return xs


def make_layer(kind: str, **settings: Any) -> Any:
    layer_type, own = KINDS[kind]
    made = {"dtype": "float64", "rng": 0, "batch_first": True, "num_layers": 2}
    return layer_type(INPUTS, HIDDEN, **{**made, **own, **settings})


def keras_weights(
    kind: str, rng: np.random.Generator, bias: bool, both: bool
) -> list[list[np.ndarray]]:
    """Random weights of two Keras layers, one above the other."""
    columns = {"rnn": 1, "relu": 1, "lstm": 4}.get(kind, 3) * HIDDEN
    stack = []
    for features in (INPUTS, HIDDEN * (2 if both else 1)):
        shapes: list[tuple[int, ...]] = [(features, columns), (HIDDEN, columns)]
        if bias:
            shapes.append((2, columns) if kind == "gru, reset after" else (columns,))
        stack.append([rng.normal(size=shape) for shape in shapes * (2 if both else 1)])
    return stack


@every_kind
@one_and_two_directions
@with_and_without_bias
def test_keras_computes_with_the_weights_what_the_layer_computes(
    rng: np.random.Generator, kind: str, both: bool, bias: bool
) -> None:
    layer = make_layer(kind, bidirectional=both, bias=bias)
    xs = rng.normal(size=(BATCH, TIME, INPUTS))
    expected = keras_stack(kind, rnn.interchange.to_keras(layer), xs, both)
    np.testing.assert_allclose(layer(mg.tensor(xs))[0].numpy(), expected, rtol=0, atol=1e-12)


@every_kind
@one_and_two_directions
@with_and_without_bias
def test_the_layer_computes_what_keras_computes_with_its_weights(
    rng: np.random.Generator, kind: str, both: bool, bias: bool
) -> None:
    weights = keras_weights(kind, rng, bias, both)
    layer = rnn.interchange.from_keras(weights, **TOLD.get(kind, {}))
    assert type(layer) is KINDS[kind][0]
    xs = rng.normal(size=(BATCH, TIME, INPUTS))
    expected = keras_stack(kind, weights, xs, both)
    np.testing.assert_allclose(layer(mg.tensor(xs))[0].numpy(), expected, rtol=0, atol=1e-12)
    back = rnn.interchange.to_keras(layer)
    for theirs, own in zip(weights, back, strict=True):
        for before, after in zip(theirs, own, strict=True):
            np.testing.assert_array_equal(before, after)


def test_both_biases_of_a_gru_come_back_bit_for_bit() -> None:
    layer = make_layer("gru, reset after", bidirectional=True)
    back = rnn.interchange.from_keras(rnn.interchange.to_keras(layer))
    assert repr(back) == repr(layer)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name].numpy(), value.numpy(), err_msg=name)


def test_one_bias_is_the_sum_of_two() -> None:
    layer = make_layer("lstm", num_layers=1)
    back = rnn.interchange.from_keras(rnn.interchange.to_keras(layer))
    both = layer.bias_ih_l0.numpy() + layer.bias_hh_l0.numpy()
    np.testing.assert_array_equal(back.state_dict()["bias_ih_l0"].numpy(), both)
    np.testing.assert_array_equal(back.state_dict()["bias_hh_l0"].numpy(), np.zeros_like(both))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_keep_their_dtype(dtype: str) -> None:
    weights = rnn.interchange.to_keras(make_layer("gru, reset after", dtype=dtype))
    assert {array.dtype for arrays in weights for array in arrays} == {np.dtype(dtype)}
    layer = rnn.interchange.from_keras(weights)
    assert {parameter.dtype for parameter in layer.parameters()} == {np.dtype(dtype)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own
@every_kind
@one_and_two_directions
@with_and_without_bias
def test_keras_itself_agrees(rng: np.random.Generator, kind: str, both: bool, bias: bool) -> None:
    keras = pytest.importorskip("keras")
    layer = make_layer(kind, bidirectional=both, bias=bias, dtype="float32")
    settings: dict[str, Any] = {"return_sequences": True, "use_bias": bias}
    if kind.startswith("gru"):
        settings["reset_after"] = kind == "gru, reset after"
    if kind == "relu":
        settings["activation"] = "relu"
    name = {rnn.RNN: "SimpleRNN", rnn.LSTM: "LSTM", rnn.GRU: "GRU"}[KINDS[kind][0]]
    made = [getattr(keras.layers, name)(HIDDEN, **settings) for _ in range(2)]
    theirs = [keras.layers.Bidirectional(one) if both else one for one in made]
    xs = rng.normal(size=(BATCH, TIME, INPUTS)).astype("float32")
    model = keras.Sequential([keras.Input((TIME, INPUTS)), *theirs])
    for one, weights in zip(theirs, rnn.interchange.to_keras(layer), strict=True):
        one.set_weights(weights)
    expected = keras.ops.convert_to_numpy(model(xs))
    np.testing.assert_allclose(layer(mg.tensor(xs))[0].numpy(), expected, rtol=0, atol=1e-6)
    back = rnn.interchange.from_keras([one.get_weights() for one in theirs], **TOLD.get(kind, {}))
    np.testing.assert_allclose(back(mg.tensor(xs))[0].numpy(), expected, rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "has"),
    [
        (rnn.LSTM(3, 4, proj_size=2, rng=0), "proj_size=2"),
        (rnn.LSTM(3, 4, peepholes="diagonal", rng=0), "peepholes='diagonal'"),
        (rnn.LSTM(3, 4, coupled=True, rng=0), "coupled=True"),
        (rnn.LSTM(3, 4, zoneout_c=0.1, rng=0), "zoneout_c=True"),
        (rnn.GRU(3, 4, layer_norm=True, rng=0), "layer_norm=True"),
        (rnn.GRU(3, 4, learn_initial_state=True, rng=0), "learn_initial_state=True"),
        (rnn.GRU(3, 4, num_layers=2, residual=True, rng=0), "residual=True"),
    ],
)
def test_what_keras_does_not_have_is_refused(layer: rnn.Recurrent, has: str) -> None:
    with pytest.raises(ValueError, match=f"Keras has no {has}, and this"):
        rnn.interchange.to_keras(layer)


def test_the_weights_of_one_keras_layer_are_no_stack() -> None:
    weights: Any = rnn.interchange.to_keras(make_layer("lstm", num_layers=1))[0]
    with pytest.raises(TypeError, match=r"write from_keras\(\[layer.get_weights\(\)\]\)"):
        rnn.interchange.from_keras(weights)
    with pytest.raises(TypeError, match=r"write from_keras\(\[layer.get_weights\(\)\]\)"):
        rnn.interchange.from_keras([])


@pytest.mark.parametrize(
    "shapes",
    [
        [],
        [(3, 16)],
        [(3, 16), (4, 12)],
        [(3, 16), (4, 16), (12,)],
        [(3, 16), (4, 16), (3, 16)],
        [(16,), (4, 16)],
        [(3, 16), (4, 16), (16,), (3, 16), (4, 16)],
    ],
    ids=str,
)
def test_shapes_that_are_not_those_of_a_keras_layer(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"a Keras layer has a kernel .*; these are"):
        rnn.interchange.from_keras([[np.ones(shape) for shape in shapes]])


def test_a_number_of_columns_that_no_kind_has() -> None:
    with pytest.raises(ValueError, match=r"1 \(RNN\), 3 \(GRU\) or 4 \(LSTM\) rows"):
        rnn.interchange.from_keras([[np.ones((3, 8)), np.ones((4, 8))]])


def test_a_stack_has_one_hidden_size() -> None:
    stack = [[np.ones((3, 16)), np.ones((4, 16))], [np.ones((4, 20)), np.ones((5, 20))]]
    with pytest.raises(ValueError, match=r"one hidden size, and these have \[4, 5\]: convert"):
        rnn.interchange.from_keras(stack)


def test_layers_that_do_not_fit_together_are_named() -> None:
    stack: list[list[np.ndarray]]
    stack = [[np.ones((3, 16)), np.ones((4, 16))], [np.ones((5, 16)), np.ones((4, 16))]]
    with pytest.raises(ValueError, match="weight_ih_l1 is"):
        rnn.interchange.from_keras(stack)
    stack[1] = [np.ones((4, 16)), np.ones((4, 16)), np.ones(16)]
    with pytest.raises(ValueError, match="bias_hh_l1 is unknown; bias_ih_l1 is unknown"):
        rnn.interchange.from_keras(stack)
    with pytest.raises(ValueError, match="all of them run in both directions, or none"):
        rnn.interchange.from_keras([stack[0], stack[0] * 2])


def test_a_gru_says_where_its_reset_gate_is() -> None:
    with pytest.raises(ValueError, match="a GRU without bias do not tell"):
        rnn.interchange.from_keras([[np.ones((3, 12)), np.ones((4, 12))]])
    weights = [[np.ones((3, 12)), np.ones((4, 12)), np.ones(12)]]
    assert rnn.interchange.from_keras(weights).cells[0].reset == "before"
    with pytest.raises(ValueError, match=r"shape \(12,\) is that of a GRU with reset_after=False"):
        rnn.interchange.from_keras(weights, reset_after=True)
    weights[0][2] = np.ones((2, 12))
    assert rnn.interchange.from_keras(weights).cells[0].reset == "after"
    with pytest.raises(ValueError, match=r"shape \(2, 12\) is that of a GRU with reset_after=True"):
        rnn.interchange.from_keras(weights, reset_after=False)
