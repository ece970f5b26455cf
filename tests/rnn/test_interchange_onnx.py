"""ONNX: models against onnx' reference evaluator, its node tests, and its equations in a loop."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import nn

onnx: Any = pytest.importorskip("onnx")
reference: Any = pytest.importorskip("onnx.reference")

INPUTS, HIDDEN, BATCH, TIME = 3, 4, 2, 5

#: What the evaluator computes, too.
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (rnn.RNN, {}),
    "lstm": (rnn.LSTM, {}),
    "lstm, peepholes": (rnn.LSTM, {"peepholes": "diagonal"}),
    "gru, reset after": (rnn.GRU, {}),
    "gru, reset before": (rnn.GRU, {"reset": "before"}),
}

#: What only the loop below computes.
OTHER_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "relu": (rnn.RNN, {"nonlinearity": "relu"}),
    "lstm, coupled": (rnn.LSTM, {"coupled": True}),
    "lstm, coupled, peepholes": (rnn.LSTM, {"coupled": True, "peepholes": "diagonal"}),
}

ALL_KINDS = KINDS | OTHER_KINDS

one_and_two_layers = pytest.mark.parametrize("layers", [1, 2])
one_and_two_directions = pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])


def make_layer(kind: str, **settings: Any) -> Any:
    layer_type, own = ALL_KINDS[kind]
    return layer_type(INPUTS, HIDDEN, **{"dtype": "float64", "rng": 0, **own, **settings})


def random_state(layer: rnn.Recurrent, rng: np.random.Generator) -> list[np.ndarray]:
    number = 2 if isinstance(layer, rnn.LSTM) else 1
    return [rng.normal(size=(len(layer.cells), BATCH, HIDDEN)) for _ in range(number)]


def as_state(parts: list[np.ndarray]) -> Any:
    tensors = [mg.tensor(part) for part in parts]
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


def outputs_of(result: tuple[Any, Any]) -> list[np.ndarray]:
    ys, state = result
    return [part.numpy() for part in (ys, *(state if isinstance(state, tuple) else (state,)))]


def assert_equal(own: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for mine, theirs in zip(own, expected, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)


# --------------------------------------------------------------------------------------
# To ONNX
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@one_and_two_layers
@one_and_two_directions
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("given", [False, True], ids=["default state", "given state"])
def test_the_evaluator_computes_what_the_layer_computes(
    rng: np.random.Generator,
    kind: str,
    layers: int,
    both: bool,
    bias: bool,
    batch_first: bool,
    given: bool,
) -> None:
    layer = make_layer(
        kind, num_layers=layers, bidirectional=both, bias=bias, batch_first=batch_first
    )
    model = rnn.interchange.to_onnx(layer, initial_state=given)
    onnx.checker.check_model(model, full_check=True)
    shape = (BATCH, TIME) if batch_first else (TIME, BATCH)
    xs, state = rng.normal(size=(*shape, INPUTS)), random_state(layer, rng)
    fed = {"X": xs}
    if given:
        fed |= dict(zip(["initial_h", "initial_c"], state, strict=False))
    theirs = reference.ReferenceEvaluator(model).run(None, fed)
    own = outputs_of(layer(mg.tensor(xs), as_state(state) if given else None))
    assert_equal(own, theirs, 1e-12)


@pytest.mark.parametrize("kind", ALL_KINDS)
@one_and_two_directions
@pytest.mark.parametrize("lengths", [None, [5, 2], [1, 4]], ids=str)
def test_a_node_means_by_onnx_equations_what_the_layer_computes(
    rng: np.random.Generator, kind: str, both: bool, lengths: list[int] | None
) -> None:
    layer = make_layer(kind, bidirectional=both)
    model = rnn.interchange.to_onnx(layer, lengths=lengths is not None, initial_state=True)
    onnx.checker.check_model(model, full_check=True)
    xs, state = rng.normal(size=(TIME, BATCH, INPUTS)), random_state(layer, rng)
    fed = {"X": xs, **dict(zip(["initial_h", "initial_c"], state, strict=False))}
    if lengths is not None:
        fed["sequence_lens"] = np.array(lengths, "int32")
    y, *last = loop_of(the_node(model), initializers_of(model) | fed)
    ys = y.swapaxes(1, 2).reshape(TIME, BATCH, -1)
    assert_equal(
        outputs_of(layer(mg.tensor(xs), as_state(state), lengths=lengths)), [ys, *last], 1e-12
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_model_has_the_layers_dtype(dtype: str) -> None:
    model = rnn.interchange.to_onnx(make_layer("lstm", dtype=dtype), initial_state=True)
    onnx.checker.check_model(model, full_check=True)
    weights = initializers_of(model)
    assert {weights[name].dtype for name in "WRB"} == {np.dtype(dtype)}
    zeros = np.zeros((1, BATCH, HIDDEN), dtype)
    fed = {"X": np.ones((TIME, BATCH, INPUTS), dtype), "initial_h": zeros, "initial_c": zeros}
    for output in reference.ReferenceEvaluator(model).run(None, fed):
        assert output.dtype == dtype


def test_a_learned_initial_state_is_given_to_the_model(rng: np.random.Generator) -> None:
    layer = make_layer("gru, reset after", learn_initial_state=True)
    for parameter in layer.parameters():
        parameter.rebind(mg.tensor(rng.normal(size=parameter.shape)))
    with pytest.raises(ValueError, match="ONNX has no learn_initial_state=True, and this GRU has"):
        rnn.interchange.to_onnx(layer)
    model = rnn.interchange.to_onnx(layer, initial_state=True)
    xs = rng.normal(size=(TIME, BATCH, INPUTS))
    fed = {"X": xs, "initial_h": layer.initial_state(BATCH).numpy()}
    theirs = reference.ReferenceEvaluator(model).run(None, fed)
    assert_equal(outputs_of(layer(mg.tensor(xs))), theirs, 1e-12)


@pytest.mark.parametrize(
    ("layer", "has"),
    [
        (rnn.LSTM(3, 4, proj_size=2, rng=0), "proj_size=2, and this LSTMCell"),
        (rnn.LSTM(3, 4, peepholes="full", rng=0), "peepholes='full', and this LSTMCell"),
        (rnn.LSTM(3, 4, layer_norm=True, rng=0), "layer_norm=True, and this LSTMCell"),
        (rnn.LSTM(3, 4, zoneout_h=0.1, rng=0), "zoneout_h=True, and this LSTMCell"),
        (rnn.LSTM(3, 4, zoneout_c=0.1, rng=0), "zoneout_c=True, and this LSTMCell"),
        (rnn.GRU(3, 4, layer_norm=True, rng=0), "layer_norm=True, and this GRUCell"),
        (rnn.GRU(3, 4, num_layers=2, residual=True, rng=0), "residual=True, and this GRU"),
        (rnn.GRU(3, 4, outputs="last", rng=0), "outputs='last', and this GRU"),
    ],
)
def test_what_the_operators_do_not_have_is_refused(layer: rnn.Recurrent, has: str) -> None:
    with pytest.raises(ValueError, match=f"ONNX has no {has} has"):
        rnn.interchange.to_onnx(layer)


def test_other_modules_and_cells_are_refused() -> None:
    other: Any = nn.Linear(3, 4, rng=0)
    with pytest.raises(TypeError, match="only a recurrent layer can go to ONNX, not Linear"):
        rnn.interchange.to_onnx(other)
    mixed = rnn.Recurrent([rnn.GRUCell(3, 4, rng=0), rnn.LSTMCell(4, 4, rng=0)])
    with pytest.raises(TypeError, match="alone, not GRUCell, LSTMCell"):
        rnn.interchange.to_onnx(mixed)
    pair = (rnn.GRUCell(3, 4, rng=0), rnn.GRUCell(3, 4, reset="before", rng=0))
    with pytest.raises(ValueError, match="cells with the same options and hidden size"):
        rnn.interchange.to_onnx(rnn.Recurrent([pair]))


def test_a_general_layer_of_known_cells_is_the_same_model() -> None:
    cells = [rnn.GRUCell(INPUTS, HIDDEN, rng=0), rnn.GRUCell(HIDDEN, HIDDEN, rng=1)]
    made = rnn.interchange.from_onnx(rnn.interchange.to_onnx(rnn.Recurrent(cells)))
    assert isinstance(made, rnn.GRU)
    xs = mg.tensor(np.ones((TIME, BATCH, INPUTS), "float32"))
    np.testing.assert_array_equal(made(xs)[0].numpy(), rnn.Recurrent(cells)(xs)[0].numpy())


# --------------------------------------------------------------------------------------
# From ONNX
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS)
@one_and_two_layers
@one_and_two_directions
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
def test_a_layer_comes_back_bit_for_bit(
    kind: str, layers: int, both: bool, bias: bool, batch_first: bool
) -> None:
    layer = make_layer(
        kind, num_layers=layers, bidirectional=both, bias=bias, batch_first=batch_first
    )
    model = rnn.interchange.to_onnx(layer, lengths=True, initial_state=True)
    back = rnn.interchange.from_onnx(onnx.load_from_string(model.SerializeToString()))
    assert repr(back) == repr(layer)
    own, theirs = layer.state_dict(), back.state_dict()
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(theirs[name].numpy(), value.numpy(), err_msg=name)


#: The names of onnx' node tests for the three operators.
NODE_TESTS = [
    *("test_simple_rnn_defaults", "test_simple_rnn_with_initial_bias", "test_rnn_seq_length"),
    *("test_simple_rnn_batchwise", "test_simple_rnn_reverse", "test_simple_rnn_bidirectional"),
    *("test_lstm_defaults", "test_lstm_with_initial_bias", "test_lstm_with_peepholes"),
    *("test_lstm_batchwise", "test_lstm_reverse", "test_lstm_bidirectional"),
    *("test_gru_defaults", "test_gru_with_initial_bias", "test_gru_seq_length"),
    *("test_gru_batchwise", "test_gru_reverse", "test_gru_bidirectional"),
]


@pytest.fixture(scope="module")
def node_tests() -> Mapping[str, Any]:
    """onnx' node tests by name, of these operators alone: to make all of them takes long."""
    cases = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("rnn", "lstm", "gru"):
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
    return {case.name: case for case in cases._NodeTestCases}


def test_all_node_tests_are_named(node_tests: Mapping[str, Any]) -> None:
    assert {name for name in node_tests if "rnn" in name or "lstm" in name or "gru" in name} == {
        *NODE_TESTS
    }


@pytest.mark.parametrize("name", NODE_TESTS)
def test_onnx_node_tests(node_tests: Mapping[str, Any], name: str) -> None:
    case = node_tests[name]
    node = the_node(case.model)
    inputs, outputs = (
        dict(zip([value.name for value in values], arrays, strict=True))
        for values, arrays in zip(
            (case.model.graph.input, case.model.graph.output), case.data_sets[0], strict=True
        )
    )
    reverse = name.endswith("reverse")
    if reverse:
        with pytest.raises(ValueError, match="direction='reverse'; for 'reverse', read it as"):
            rnn.interchange.from_onnx(node, inputs)
        for attribute in node.attribute:
            if attribute.name == "direction":
                attribute.s = b"forward"
    weights = {name: inputs[name] for name in ("W", "R", "B", "P") if name in inputs}
    layer = rnn.interchange.from_onnx(node, weights)

    xs, batch_axis = mg.tensor(inputs["X"]), 0 if layer.batch_first else 1
    state = [inputs[name] for name in ("initial_h", "initial_c") if name in inputs]
    if reverse:
        y, last = rnn.unroll(layer.cells[0], xs, reverse=True)
        own = [y.numpy()[:, None], *(part[None] for part in outputs_of((y, last))[1:])]
    else:
        lengths = inputs.get("sequence_lens")
        y, *last = outputs_of(layer(xs, as_state(state) if state else None, lengths=lengths))
        by_direction = y.reshape(*y.shape[:2], len(layer.cells), -1)
        own = [by_direction if layer.batch_first else by_direction.swapaxes(1, 2)]
        own += [part.swapaxes(0, 1) if layer.batch_first else part for part in last]
    assert xs.shape[batch_axis] == own[-1].shape[0 if layer.batch_first else 1]
    found = dict(zip(["Y", "Y_h", "Y_c"], own, strict=False))
    assert outputs
    for output, expected in outputs.items():
        np.testing.assert_allclose(found[output], expected, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("layout", [0, 1])
def test_a_stack_of_nodes_is_one_layer(rng: np.random.Generator, layout: int) -> None:
    weights = {
        "W0": rng.normal(size=(2, 3 * HIDDEN, INPUTS)),
        "W1": rng.normal(size=(2, 3 * HIDDEN, 2 * HIDDEN)),
        "R0": rng.normal(size=(2, 3 * HIDDEN, HIDDEN)),
        "R1": rng.normal(size=(2, 3 * HIDDEN, HIDDEN)),
    }
    model = stacked_grus(
        weights, layout, 2, "bidirectional", (0, 1, 2, 3) if layout else (0, 2, 1, 3)
    )
    layer = rnn.interchange.from_onnx(model)
    assert (layer.batch_first, len(layer.layers)) == (bool(layout), 2)
    xs = rng.normal(size=(BATCH, TIME, INPUTS) if layout else (TIME, BATCH, INPUTS))
    (expected,) = reference.ReferenceEvaluator(model).run(None, {"X": xs})
    np.testing.assert_allclose(layer(mg.tensor(xs))[0].numpy(), expected, rtol=0, atol=1e-12)


def stacked_grus(
    weights: Mapping[str, np.ndarray], layout: int, layers: int, direction: str, order: Any
) -> Any:
    nodes = []
    for k in range(layers):
        names = [f"X{k}" if k else "X", f"W{k}", f"R{k}"]
        settings = {"hidden_size": HIDDEN, "direction": direction, "layout": layout}
        nodes += [
            onnx.helper.make_node("GRU", names, [f"Y{k}"], **settings),
            onnx.helper.make_node("Transpose", [f"Y{k}"], [f"T{k}"], perm=order),
            onnx.helper.make_node("Reshape", [f"T{k}", "joined"], [f"X{k + 1}"]),
        ]
    double = onnx.TensorProto.DOUBLE
    ends = [
        [onnx.helper.make_tensor_value_info(name, double, shape)]
        for name, shape in (("X", ["a", "b", INPUTS]), (f"X{layers}", None))
    ]
    constants = {"joined": np.array([0, 0, -1]), **weights}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "stack", *ends, tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])


def lstm_node(inputs: str = "X W R", **attributes: Any) -> Any:
    return onnx.helper.make_node("LSTM", inputs.split(), ["Y"], hidden_size=HIDDEN, **attributes)


WEIGHTS = {"W": np.ones((1, 4 * HIDDEN, INPUTS)), "R": np.ones((1, 4 * HIDDEN, HIDDEN))}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"clip": 1.0}, r"no LSTM here has the attribute clip \(1.0\)"),
        ({"activation_alpha": [0.5]}, r"the attribute activation_alpha \(\[0.5\]\)"),
        ({"activation_beta": [0.5]}, r"the attribute activation_beta \(\[0.5\]\)"),
        (
            {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
            "no LSTM here has the activations hardsigmoid, tanh, tanh",
        ),
        ({"direction": "reverse"}, "this node has direction='reverse'"),
        ({"direction": "sideways"}, "this node has direction='sideways'"),
    ],
)
def test_attributes_without_a_counterpart_are_refused(
    attributes: dict[str, Any], message: str
) -> None:
    assert rnn.interchange.from_onnx(lstm_node(), WEIGHTS).cells[0].hidden_size == HIDDEN
    with pytest.raises(ValueError, match=message):
        rnn.interchange.from_onnx(lstm_node(**attributes), WEIGHTS)


def test_activations_that_are_the_usual_ones_may_be_written_out() -> None:
    names = ["Sigmoid", "Tanh", "tanh"]
    node = lstm_node(activations=names)
    nothing = onnx.AttributeProto(name="activation_alpha", type=onnx.AttributeProto.FLOATS)
    node.attribute.append(nothing)
    assert isinstance(rnn.interchange.from_onnx(node, WEIGHTS), rnn.LSTM)


@pytest.mark.parametrize(
    ("node", "given", "message"),
    [
        (lstm_node(), {"R": WEIGHTS["R"]}, r"W of the LSTM is 'W', whose value is not known: give"),
        (lstm_node("X W"), WEIGHTS, "the LSTM node has no input R"),
        (
            lstm_node(),
            {**WEIGHTS, "W": np.ones((2, 4 * HIDDEN, INPUTS))},
            r"for 1 direction\(s\) and hidden_size=4, W of the LSTM is \(1, 16, 3\), not \(2,",
        ),
        (
            lstm_node("X W R B"),
            {**WEIGHTS, "B": np.ones((1, 4 * HIDDEN))},
            r"B of the LSTM is \(1, 32\), not \(1, 16\)",
        ),
        (
            onnx.helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=5),
            WEIGHTS,
            r"hidden_size=5, W of the GRU is \(1, 15, 3\)",
        ),
        (onnx.helper.make_node("Gemm", ["X", "W"], ["Y"]), WEIGHTS, "RNN, LSTM or GRU, not Gemm"),
    ],
)
def test_weights_that_are_missing_or_do_not_fit_are_named(
    node: Any, given: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.interchange.from_onnx(node, given)


def empty_named(text: str) -> list[str]:
    return ["" if name == "-" else name for name in text.split()]


def test_a_state_or_lengths_inside_the_model_are_refused() -> None:
    node = onnx.helper.make_node("LSTM", empty_named("X W R - - h c"), ["Y"], hidden_size=HIDDEN)
    zeros = {"h": np.zeros((1, BATCH, HIDDEN)), "c": np.zeros((1, BATCH, HIDDEN))}
    assert isinstance(rnn.interchange.from_onnx(node, WEIGHTS | zeros), rnn.LSTM)
    with pytest.raises(ValueError, match="the initial state 'c' is part of the model and not 0"):
        rnn.interchange.from_onnx(node, WEIGHTS | zeros | {"c": np.ones((1, BATCH, HIDDEN))})
    node = onnx.helper.make_node("LSTM", empty_named("X W R - n"), ["Y"], hidden_size=HIDDEN)
    with pytest.raises(ValueError, match="sequence_lens is part of the model"):
        rnn.interchange.from_onnx(node, WEIGHTS | {"n": np.array([1, 2], "int32")})


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_state_that_the_model_computes_must_be_zero(value: float) -> None:
    model = rnn.interchange.to_onnx(make_layer("gru, reset after"))
    (node,) = (node for node in model.graph.node if node.op_type == "GRU")
    filled = onnx.helper.make_node(
        "ConstantOfShape",
        ["state_shape"],
        ["h"],
        value=onnx.numpy_helper.from_array(np.array([value])),
    )
    model.graph.node.insert(0, filled)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([1, 3, HIDDEN]), "state_shape")
    )
    node.input.extend(["", "h"])
    if value:
        with pytest.raises(ValueError, match="the initial state 'h' is part of the model"):
            rnn.interchange.from_onnx(model)
    else:
        assert isinstance(rnn.interchange.from_onnx(model), rnn.GRU)


def test_a_model_with_other_parts_is_refused() -> None:
    model = rnn.interchange.to_onnx(make_layer("rnn"))
    model.graph.node.append(onnx.helper.make_node("Relu", ["Y"], ["Z"]))
    with pytest.raises(ValueError, match="this one has also Relu: give a node of"):
        rnn.interchange.from_onnx(model)
    del model.graph.node[:]
    with pytest.raises(ValueError, match="this one has no such node"):
        rnn.interchange.from_onnx(model)


def test_a_stack_that_is_put_together_in_another_way_is_refused(rng: np.random.Generator) -> None:
    weights = {name: rng.normal(size=(1, 3 * HIDDEN, HIDDEN)) for name in ("R0", "R1", "W1")}
    weights["W0"] = rng.normal(size=(1, 3 * HIDDEN, INPUTS))
    expected = (0, 2, 1, 3)
    assert rnn.interchange.from_onnx(stacked_grus(weights, 0, 2, "forward", expected))
    with pytest.raises(ValueError, match="'X1', the input of the next GRU, is not 'Y0'"):
        rnn.interchange.from_onnx(stacked_grus(weights, 0, 2, "forward", (2, 0, 1, 3)))
    fixed = stacked_grus(weights | {"joined": np.array([5, 2, 4])}, 0, 2, "forward", expected)
    with pytest.raises(ValueError, match="'X1', the input of the next GRU, is not 'Y0'"):
        rnn.interchange.from_onnx(fixed)
    beside = stacked_grus(weights | {"W1": weights["W0"]}, 0, 2, "forward", expected)
    beside.graph.node[3].input[0] = "X"  # both nodes read the input
    with pytest.raises(ValueError, match="'X', the input of the next GRU, is not 'Y0'"):
        rnn.interchange.from_onnx(beside)


def test_a_decoder_that_begins_where_an_encoder_ended_is_no_stack() -> None:
    model = rnn.interchange.to_onnx(make_layer("gru, reset after", num_layers=2))
    lower, upper = (node for node in model.graph.node if node.op_type == "GRU")
    upper.input.extend(["", lower.output[1]])
    with pytest.raises(ValueError, match="'Y_h_l0' comes from a recurrent node that is not the"):
        rnn.interchange.from_onnx(model)
    del upper.input[4:]
    upper.input[0] = lower.output[1]
    with pytest.raises(ValueError, match="'Y_h_l0', the input of the next GRU, is not"):
        rnn.interchange.from_onnx(model)


def test_nodes_that_differ_are_no_stack() -> None:
    model = rnn.interchange.to_onnx(make_layer("gru, reset after", num_layers=2))
    second = [node for node in model.graph.node if node.op_type == "GRU"][1]
    for attribute in second.attribute:
        if attribute.name == "linear_before_reset":
            attribute.i = 0
    with pytest.raises(ValueError, match="the nodes of a stack have the same operator and attr"):
        rnn.interchange.from_onnx(model)


def test_without_onnx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"need onnx: install minigrad\[onnx\]"):
        rnn.interchange.to_onnx(make_layer("rnn"))
    with pytest.raises(ImportError, match=r"need onnx: install minigrad\[onnx\]"):
        rnn.interchange.from_onnx(lstm_node(), WEIGHTS)


# --------------------------------------------------------------------------------------
# ONNX' equations, as its documentation of the operators writes them
# --------------------------------------------------------------------------------------


def the_node(model: Any) -> Any:
    (node,) = (n for n in model.graph.node if n.op_type in ("RNN", "LSTM", "GRU"))
    return node


def initializers_of(model: Any) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def loop_of(node: Any, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Y, Y_h and for an LSTM Y_c, of a node with layout=0, an initial state and a bias."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    operands = {
        name: values[given]
        for name, given in zip(
            ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
            node.input,
            strict=False,
        )
        if given
    }
    directions = []
    for d in range(len(operands["W"])):
        own = {
            name: array if name in ("X", "sequence_lens") else array[d]
            for name, array in operands.items()
        }
        directions.append(list(direction_of(node.op_type, attributes, own, backwards=d == 1)))
    y, *last = (list(parts) for parts in zip(*directions, strict=True))
    return [np.stack(y, axis=1), *(np.stack(parts) for parts in last)]


def direction_of(
    operator: str, attributes: Mapping[str, Any], own: Mapping[str, np.ndarray], backwards: bool
) -> Iterator[np.ndarray]:
    xs = own["X"]
    time, batch = xs.shape[:2]
    h = own["initial_h"]
    c = own.get("initial_c", h)
    lengths = own.get("sequence_lens", np.full(batch, time))
    ys = np.zeros((time, *h.shape))
    for t in reversed(range(time)) if backwards else range(time):
        new_h, new_c = step_of(operator, attributes, own, xs[t], h, c)
        valid = (t < lengths)[:, None]
        h, c = np.where(valid, new_h, h), np.where(valid, new_c, c)
        ys[t] = np.where(valid, new_h, 0.0)
    yield from (ys, h, c) if operator == "LSTM" else (ys, h)


def step_of(
    operator: str,
    attributes: Mapping[str, Any],
    own: Mapping[str, np.ndarray],
    x: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    bias_w, bias_r = np.split(own["B"], 2)
    from_x, from_h = x @ own["W"].T + bias_w, h @ own["R"].T
    if operator == "RNN":
        total = from_x + from_h + bias_r
        return np.tanh(total) if b"Tanh" in attributes["activations"] else np.maximum(total, 0.0), c
    if operator == "LSTM":
        i, o, f, g = np.split(from_x + from_h + bias_r, 4, axis=-1)
        p_i, p_o, p_f = np.split(own.get("P", np.zeros(3 * h.shape[-1])), 3)
        i = sigmoid(i + p_i * c)
        f = 1.0 - i if attributes["input_forget"] else sigmoid(f + p_f * c)
        new_c = f * c + i * np.tanh(g)
        return sigmoid(o + p_o * new_c) * np.tanh(new_c), new_c
    x_z, x_r, x_h = np.split(from_x, 3, axis=-1)
    b_z, b_r, b_h = np.split(bias_r, 3)
    r_z, r_r, r_h = np.split(own["R"], 3)
    z, r = sigmoid(x_z + h @ r_z.T + b_z), sigmoid(x_r + h @ r_r.T + b_r)
    if attributes["linear_before_reset"]:
        new = np.tanh(x_h + r * (h @ r_h.T + b_h))
    else:
        new = np.tanh(x_h + (r * h) @ r_h.T + b_h)
    return (1.0 - z) * new + z * h, c
