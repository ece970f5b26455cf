"""ONNX: a layer as a model of RNN, LSTM or GRU nodes, one for each layer of its stack, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from minigrad_rnn.cells import Cell, GRUCell, LSTMCell, RNNCell
from minigrad_rnn.interchange.stacks import as_array, cells_of, layer_of, weights_of
from minigrad_rnn.layers import Recurrent

if TYPE_CHECKING:
    import onnx

#: The cell of each operator.
OPERATORS: dict[str, type[Cell]] = {"RNN": RNNCell, "LSTM": LSTMCell, "GRU": GRUCell}

#: The gates in W, R and B; ONNX' names for an LSTM's g and a GRU's n are c and h.
ORDER = {"RNN": "h", "LSTM": "iofg", "GRU": "zrn"}

#: The activations that a node may have for each direction, the usual ones first.
ACTIVATIONS: dict[str, list[tuple[str, ...]]] = {
    "RNN": [("tanh",), ("relu",)],
    "LSTM": [("sigmoid", "tanh", "tanh")],
    "GRU": [("sigmoid", "tanh")],
}

#: The inputs of the three operators, by position.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

#: The order of the peepholes in P.
PEEPHOLES = ("weight_ci", "weight_co", "weight_cf")

#: The version of the operators that are written: one that all current runtimes read.
OPSET = 14

#: Operators that put elements in their places, and those that compute these places.
MOVING = {
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Gather",
    "Identity",
    "Reshape",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}

#: What a node says: its operator, the options of its layer, the weights for every direction.
_Read = tuple[str, dict[str, Any], list[dict[str, NDArray[Any]]]]


def to_onnx(
    layer: Recurrent, *, lengths: bool = False, initial_state: bool = False
) -> onnx.ModelProto:
    """A model that computes what the layer computes, in evaluation mode.

    Args:
        layer: an RNN, LSTM or GRU; an LSTM may have diagonal peepholes and coupled gates.
        lengths: whether the model has an input ``sequence_lens``, (batch,), int32.
        initial_state: whether it has inputs ``initial_h`` and, for an LSTM, ``initial_c``; the
            state is 0 otherwise. With a learned state, give it ``layer.initial_state(batch)``.

    Returns an ``onnx.ModelProto`` with the inputs and outputs

        X                     (time, batch, input_size)
        Y                     (time, batch, directions * hidden_size)
        initial_h, initial_c  (num_layers * directions, batch, hidden_size)
        Y_h, Y_c              (num_layers * directions, batch, hidden_size)

    where X and Y are (batch, time, features) if the layer is ``batch_first``. The weights are
    its initializers ``W_l0``, ``R_l0``, ``B_l0``, ``P_l0``, ``W_l1``, ...

    Raises:
        ImportError: if onnx is not installed.
        TypeError: if it is not such a layer.
        ValueError: if it has an option that these operators do not have.

    >>> import minigrad_rnn as rnn
    >>> model = rnn.interchange.to_onnx(rnn.LSTM(3, 4, num_layers=2, rng=0))
    >>> [node.op_type for node in model.graph.node if node.op_type == "LSTM"]
    ['LSTM', 'LSTM']
    >>> rnn.interchange.from_onnx(model)
    LSTM(3, 4, num_layers=2)
    """
    onnx = _onnx()
    has: dict[str, tuple[Any, ...]] = {
        "reset": ("before",),
        "peepholes": ("diagonal",),
        "coupled": (True,),
        "learn_initial_state": (initial_state,),
    }
    stack = cells_of(layer, "ONNX", has)
    operator = next(name for name, cell_type in OPERATORS.items() if cell_type is type(stack[0][0]))
    states = ("h", "c") if operator == "LSTM" else ("h",)
    suffixes = [f"_l{k}" for k in range(len(stack))] if len(stack) > 1 else [""]
    node = onnx.helper.make_node

    nodes, constants, x = [], {"joined": numpy.array([0, 0, -1])}, "X"
    if layer.batch_first:
        nodes.append(node("Transpose", [x], ["X_by_time"], perm=(1, 0, 2)))
        x = "X_by_time"
    if initial_state and len(stack) > 1:
        for part in states:
            of_layers = [f"initial_{part}{suffix}" for suffix in suffixes]
            nodes.append(node("Split", [f"initial_{part}"], of_layers, axis=0))
    for suffix, cells in zip(suffixes, stack, strict=True):
        weights = _operands(cells, ORDER[operator])
        constants |= {name + suffix: array for name, array in weights.items()}
        names = {"X": x, **{name: name + suffix for name in weights}}
        if lengths:
            names["sequence_lens"] = "sequence_lens"
        if initial_state:
            names |= {f"initial_{part}": f"initial_{part}{suffix}" for part in states}
        inputs = [names.get(name, "") for name in INPUTS]
        while not inputs[-1]:
            inputs.pop()
        outputs = [f"Y_by_direction{suffix}", *(f"Y_{part}{suffix}" for part in states)]
        nodes.append(node(operator, inputs, outputs, **_attributes(cells)))
        # (time, directions, batch, hidden) -> (time, batch, directions * hidden)
        top = suffix == suffixes[-1]
        order = (2, 0, 1, 3) if top and layer.batch_first else (0, 2, 1, 3)
        x = "Y" if top else f"Y{suffix}"
        nodes.append(node("Transpose", outputs[:1], [f"Y_by_time{suffix}"], perm=order))
        nodes.append(node("Reshape", [f"Y_by_time{suffix}", "joined"], [x]))
    if len(stack) > 1:
        for part in states:
            of_layers = [f"Y_{part}{suffix}" for suffix in suffixes]
            nodes.append(node("Concat", of_layers, [f"Y_{part}"], axis=0))

    bottom, directions = stack[0][0], len(stack[0])
    dtype = onnx.helper.np_dtype_to_tensor_dtype(bottom.weight_ih.dtype)
    info = onnx.helper.make_tensor_value_info
    sequence = ("batch", "time") if layer.batch_first else ("time", "batch")
    state = (len(stack) * directions, "batch", bottom.hidden_size)
    inputs = [info("X", dtype, (*sequence, bottom.input_size))]
    if lengths:
        inputs.append(info("sequence_lens", onnx.TensorProto.INT32, ("batch",)))
    if initial_state:
        inputs += [info(f"initial_{part}", dtype, state) for part in states]
    outputs = [info("Y", dtype, (*sequence, directions * bottom.hidden_size))]
    outputs += [info(f"Y_{part}", dtype, state) for part in states]
    initializers = [
        onnx.numpy_helper.from_array(numpy.ascontiguousarray(array), name)
        for name, array in constants.items()
    ]
    graph = onnx.helper.make_graph(nodes, "recurrent", inputs, outputs, initializers)
    versions = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(
        graph,
        producer_name="minigrad_rnn",
        opset_imports=versions,
        ir_version=onnx.helper.find_min_ir_version_for(versions),
    )


def from_onnx(
    source: onnx.ModelProto | onnx.NodeProto,
    initializers: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
) -> Recurrent:
    """The RNN, LSTM or GRU that computes what a node, or a stack of nodes, computes.

    Args:
        source: a node RNN, LSTM or GRU; or a model that consists of such nodes of one kind, each
            reading the one before, and of operators that lay out their inputs and outputs.
        initializers: the values of W, R, B and P by the names that the node has for them; for a
            model, only of those that are not its own initializers.
        device: where the parameters go.

    Returns a layer that lays out x and y as PyTorch does: y is (time, batch, directions *
    hidden_size), or batch first for the attribute ``layout=1`` or a model that takes X so.
    ``sequence_lens``, ``initial_h`` and ``initial_c`` are arguments of its call.

    Raises:
        ImportError: if onnx is not installed.
        ValueError: if something is missing, of a wrong shape, or cannot be expressed here: clip,
            other activations, the direction "reverse", an initial state that is a constant.

    >>> import minigrad_rnn as rnn, numpy as np, onnx
    >>> node = onnx.helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=4)
    >>> rnn.interchange.from_onnx(node, {"W": np.ones((1, 12, 3)), "R": np.ones((1, 12, 4))})
    GRU(3, 4, reset='before', num_layers=1)
    """
    onnx = _onnx()
    constants = dict(initializers or {})
    nodes = [source]
    if isinstance(source, onnx.ModelProto):
        constants = _constants(onnx, source) | constants
        nodes = _stack_of(source)
    read = [_read(onnx, node, constants) for node in nodes]
    operator, options, _ = read[0]
    if any(other[:2] != read[0][:2] for other in read):
        raise ValueError(
            "the nodes of a stack have the same operator and attributes, and these are "
            + ", ".join(f"{name} with {settings}" for name, settings, _ in read)
        )
    if isinstance(source, onnx.ModelProto):
        options["batch_first"] ^= _swaps_input(onnx, source, nodes, read)
    weights = [weights for *_, weights in read]
    return layer_of(OPERATORS[operator], weights, ORDER[operator], device=device, **options)


def _operands(cells: Sequence[Cell], order: str) -> dict[str, NDArray[Any]]:
    """W, R, and B and P if there are such, of the cells of both directions."""
    weights = [weights_of(cell, order) for cell in cells]
    made = {
        "W": [each["weight_ih"] for each in weights],
        "R": [each["weight_hh"] for each in weights],
    }
    if "bias_ih" in weights[0]:
        made["B"] = [numpy.concatenate([each["bias_ih"], each["bias_hh"]]) for each in weights]
    if "weight_ci" in weights[0]:  # coupled gates have no weight_cf
        nothing = numpy.zeros_like(weights[0]["weight_ci"])
        made["P"] = [
            numpy.concatenate([each.get(name, nothing) for name in PEEPHOLES]) for each in weights
        ]
    return {name: numpy.stack(arrays) for name, arrays in made.items()}


def _attributes(cells: Sequence[Cell]) -> dict[str, Any]:
    """The attributes of the node that does what the cells of both directions do."""
    cell = cells[0]
    made: dict[str, Any] = {
        "hidden_size": cell.hidden_size,
        "direction": "bidirectional" if len(cells) == 2 else "forward",
    }
    if isinstance(cell, RNNCell):
        made["activations"] = [cell.nonlinearity.capitalize()] * len(cells)
    elif isinstance(cell, LSTMCell):
        made["input_forget"] = int(cell.coupled)
    elif isinstance(cell, GRUCell):
        made["linear_before_reset"] = int(cell.reset == "after")
    return made


def _read(onnx: Any, node: onnx.NodeProto, constants: Mapping[str, Any]) -> _Read:
    """The operator of a node, the options of its layer, and the weights for every direction."""
    operator = node.op_type
    if operator not in OPERATORS:
        raise ValueError(f"the node is an RNN, LSTM or GRU, not {operator}")
    attributes: dict[str, Any] = {
        a.name: onnx.helper.get_attribute_value(a) for a in node.attribute
    }
    direction = attributes.pop("direction", b"forward").decode()
    if direction not in ("forward", "bidirectional"):
        raise ValueError(
            f"a layer runs forward or both ways, and this node has direction={direction!r}; for "
            "'reverse', read it as 'forward', and run the layer's cell by "
            "rnn.unroll(layer.cells[0], xs, reverse=True)"
        )
    directions = 2 if direction == "bidirectional" else 1
    options: dict[str, Any] = {"batch_first": bool(attributes.pop("layout", 0))}
    usual = ACTIVATIONS[operator][0] * directions
    given = attributes.pop("activations", None) or [name.encode() for name in usual]
    activations = tuple(name.decode().lower() for name in given)[: len(usual)]
    if activations not in [once * directions for once in ACTIVATIONS[operator]]:
        raise ValueError(f"no {operator} here has the activations {', '.join(activations)}")
    if operator == "RNN":
        options["nonlinearity"] = activations[0]
    elif operator == "LSTM":
        options["coupled"] = bool(attributes.pop("input_forget", 0))
    else:
        options["reset"] = "after" if attributes.pop("linear_before_reset", 0) else "before"
    hidden = attributes.pop("hidden_size", None)
    for name, value in attributes.items():
        if value != []:
            raise ValueError(f"no {operator} here has the attribute {name} ({value})")

    names = {name: given for name, given in zip(INPUTS, node.input, strict=False) if given}
    for name in filter(None, node.input[5:7]):
        _check_initial_state(name, constants.get(name))
    if names.get("sequence_lens") in constants:
        raise ValueError(
            "sequence_lens is part of the model: make it an input, and give the layer lengths= "
            "when it is called"
        )
    operands = {}
    for name in ("W", "R", "B", "P"):
        if name in names and names[name] not in constants:
            raise ValueError(
                f"{name} of the {operator} is {names[name]!r}, whose value is not known: give "
                f"initializers={{{names[name]!r}: array, ...}}"
            )
        if name in names:
            operands[name] = as_array(constants[names[name]])
    _check_shapes(operator, directions, hidden, operands)
    if "P" in operands:
        options["peepholes"] = "diagonal"
    return (
        operator,
        options,
        [
            _weights_of_direction(
                {name: array[k] for name, array in operands.items()}, options.get("coupled", False)
            )
            for k in range(directions)
        ],
    )


def _check_shapes(
    operator: str, directions: int, hidden: int | None, operands: Mapping[str, NDArray[Any]]
) -> None:
    """Raise ``ValueError`` unless W, R, B and P are of the shapes that belong together."""
    missing = {"W", "R"} - operands.keys()
    if missing:
        raise ValueError(f"the {operator} node has no input {min(missing)}")
    hidden = operands["R"].shape[-1] if hidden is None else hidden
    rows = len(ORDER[operator]) * hidden
    expected = {
        "W": (directions, rows, operands["W"].shape[-1]),
        "R": (directions, rows, hidden),
        "B": (directions, 2 * rows),
        "P": (directions, len(PEEPHOLES) * hidden),
    }
    for name, array in operands.items():
        if array.shape != expected[name]:
            raise ValueError(
                f"for {directions} direction(s) and hidden_size={hidden}, {name} of the {operator} "
                f"is {expected[name]}, not {array.shape}"
            )


def _weights_of_direction(
    operands: Mapping[str, NDArray[Any]], coupled: bool
) -> dict[str, NDArray[Any]]:
    """The weights of a cell, its gates in ONNX' order, from W, R, B and P of its direction."""
    weights = {"weight_ih": operands["W"], "weight_hh": operands["R"]}
    if "B" in operands:
        weights["bias_ih"], weights["bias_hh"] = numpy.split(operands["B"], 2)
    if "P" in operands:
        weights |= zip(PEEPHOLES, numpy.split(operands["P"], len(PEEPHOLES)), strict=True)
        if coupled:
            del weights["weight_cf"]
    return weights


def _stack_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The recurrent nodes of a model, which must be all that it computes, from the bottom up."""
    nodes = [node for node in model.graph.node if node.op_type in OPERATORS]
    others = {node.op_type for node in model.graph.node} - OPERATORS.keys() - MOVING
    if not nodes or others:
        raise ValueError(
            "a model is read whole, as a stack of RNN, LSTM or GRU nodes and nothing else; this "
            f"one has {'also ' + ', '.join(sorted(others)) if nodes else 'no such node'}: "
            "give a node of model.graph.node, and the initializers"
        )
    return nodes


def _swaps_input(
    onnx: Any, model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], read: Sequence[_Read]
) -> bool:
    """Whether the model hands its first two axes to the nodes in the other order.

    Numbered elements run through what lies in front of every node, which must hand on what the
    layer below has put out, (time, batch, directions * hidden_size), or its like for layout=1.

    Raises ``ValueError`` if it does anything else, or begins with a state other than 0.
    """
    x = source = model.graph.input[0].name
    numbers = numpy.arange(12).reshape(2, 3, 2)
    expected = {False: numbers, True: numbers.swapaxes(0, 1)}
    swapped = False
    for node, (operator, options, weights) in zip(nodes, read, strict=True):
        handed_on = _carried(onnx, model, source, node.input[0], numbers)
        found = [
            swap
            for swap, wanted in expected.items()
            if handed_on is not None and numpy.array_equal(handed_on, wanted)
        ]
        if not found:
            raise ValueError(
                f"{node.input[0]!r}, the input of the next {operator}, is not {source!r} in the "
                "layout that a layer of a stack expects: give the nodes one by one"
            )
        swapped |= found[0]
        for name in filter(None, node.input[5:7]):
            _check_initial_state(name, _carried(onnx, model, x, name, numpy.zeros((2, 3, 2))))
        source, size = node.output[0], len(weights) * weights[0]["weight_hh"].shape[-1]
        shape = (2, 3, len(weights), -1) if options["batch_first"] else (2, len(weights), 3, -1)
        numbers = numpy.arange(6 * size).reshape(shape)
        rows = numbers if options["batch_first"] else numbers.swapaxes(1, 2)
        expected = {False: rows.reshape(2, 3, size)}
    return swapped


def _check_initial_state(name: str, value: NDArray[Any] | None) -> None:
    """Raise ``ValueError`` for a state other than 0 that is not an argument, which is ``None``."""
    if value is not None and numpy.any(value):
        raise ValueError(
            f"the initial state {name!r} is part of the model and not 0: make it an input, and "
            "give it to the layer when it is called"
        )


def _carried(
    onnx: Any, model: onnx.ModelProto, source: str, target: str, numbers: NDArray[Any]
) -> NDArray[Any] | None:
    """What is found in ``target`` if ``numbers`` are put in ``source``.

    ``None`` if it depends on more than that, or numbers of this shape do not pass. Raises
    ``ValueError`` if a recurrent node is in between.
    """
    wanted: set[str] = {target}
    between: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):  # which are in the order of computation
        if source not in node.output and wanted & set(node.output):
            between.insert(0, node)
            wanted |= set(node.input)
    if any(node.op_type in OPERATORS for node in between):
        raise ValueError(
            f"{target!r} comes from a recurrent node that is not the one below: give the nodes "
            "one by one"
        )
    known = {source, "", *(name for node in between for name in node.output)}
    if wanted - known - {tensor.name for tensor in model.graph.initializer}:
        return None
    ends = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)]
        for name in (source, target)
    ]
    graph = onnx.helper.make_graph(between, "between", *ends, model.graph.initializer)
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    try:
        carried: NDArray[Any]
        (carried,) = onnx.reference.ReferenceEvaluator(part).run(None, {source: numbers})
    except ValueError:
        return None
    return carried


def _constants(onnx: Any, model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """The values of a model that are known: its initializers, and those of Constant nodes."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def _onnx() -> Any:
    try:
        import onnx.reference
    except ImportError as error:
        raise ImportError("to_onnx and from_onnx need onnx: install minigrad[onnx]") from error
    return onnx
