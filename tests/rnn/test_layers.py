"""RNN, LSTM and GRU against torch.nn and their own cells; their parameters, modes and copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad.testing import check_gradients

INPUTS, HIDDEN, BATCH, TIME = 3, 4, 2, 5

KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "tanh": (rnn.RNN, {}),
    "relu": (rnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (rnn.LSTM, {}),
    "projected lstm": (rnn.LSTM, {"proj_size": 2}),
    "gru": (rnn.GRU, {}),
}

#: Valid steps of every sequence: all, fewer and fewer, or in any order.
LENGTHS: dict[str, list[int] | None] = {"full": None, "sorted": [5, 3], "unsorted": [1, 4]}

every_kind = pytest.mark.parametrize("kind", KINDS)
up_to_three_layers = pytest.mark.parametrize("layers", [1, 2, 3])
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
one_or_both_directions = pytest.mark.parametrize(
    "bidirectional", [False, True], ids=["forward", "bidirectional"]
)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def make_layer(kind: str, layers: int = 2, **settings: Any) -> rnn.Recurrent:
    layer_type, own = KINDS[kind]
    layer: rnn.Recurrent = layer_type(
        INPUTS, HIDDEN, **{"num_layers": layers, "dtype": "float64", "rng": 0, **own, **settings}
    )
    return layer


def torch_layer(torch: Any, kind: str, layers: int, **settings: Any) -> Any:
    layer_type, own = KINDS[kind]
    made = getattr(torch.nn, layer_type.__name__)
    return made(INPUTS, HIDDEN, num_layers=layers, dtype=torch.float64, **own, **settings)


def parts_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_state(parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]


def random_state(
    kind: str, layers: int, rng: np.random.Generator, batch: tuple[int, ...] = (BATCH,)
) -> list[np.ndarray]:
    features = {"lstm": [HIDDEN, HIDDEN], "projected lstm": [2, HIDDEN]}.get(kind, [HIDDEN])
    return [rng.normal(size=(layers, *batch, n)) for n in features]


def sequence(rng: np.random.Generator, time: int = TIME) -> Tensor:
    return mg.tensor(rng.normal(size=(time, BATCH, INPUTS)))


def assert_close(own: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=0, atol=tolerance)


# --------------------------------------------------------------------------------------
# Against torch.nn
# --------------------------------------------------------------------------------------


@every_kind
@up_to_three_layers
@with_and_without_bias
@one_or_both_directions
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_values_states_and_all_gradients_equal_torchs(
    torch: Any,
    rng: np.random.Generator,
    kind: str,
    layers: int,
    bias: bool,
    bidirectional: bool,
    batch_first: bool,
    given: bool,
    lengths: list[int] | None,
) -> None:
    settings = {"bias": bias, "bidirectional": bidirectional, "batch_first": batch_first}
    layer = make_layer(kind, layers, **settings)
    twin = torch_layer(torch, kind, layers, **settings)
    twin.load_state_dict({n: torch.tensor(p.numpy()) for n, p in layer.state_dict().items()})
    cells = layers * (2 if bidirectional else 1)
    shape = (BATCH, TIME) if batch_first else (TIME, BATCH)
    arrays = [rng.normal(size=(*shape, INPUTS)), *random_state(kind, cells, rng)]
    arrays = arrays if given else arrays[:1]
    padding = np.arange(TIME)[:, None] >= np.array(lengths or [TIME] * BATCH)
    padding = padding.T if batch_first else padding
    padded = np.where(padding[..., None], np.nan, arrays[0])

    leaves = [mg.tensor(a, requires_grad=True) for a in (padded, *arrays[1:])]
    with mg.Tape() as tape:
        ys, state = layer(leaves[0], as_state(leaves[1:]) if given else None, lengths=lengths)
        outputs = [ys, *parts_of(state)]
        weights = [rng.normal(size=output.shape) for output in outputs]
        weighted = [(o * mg.tensor(w)).sum() for o, w in zip(outputs, weights, strict=True)]
        loss = mg.stack(weighted).sum()
    tape.backward(loss)

    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    their_xs: Any = theirs[0]
    packing = {"batch_first": batch_first}
    if lengths:
        their_xs = torch.nn.utils.rnn.pack_padded_sequence(
            their_xs, torch.tensor(lengths), enforce_sorted=False, **packing
        )
    their_ys, their_state = twin(their_xs, as_state(theirs[1:]) if given else None)
    if lengths:
        their_ys, _ = torch.nn.utils.rnn.pad_packed_sequence(their_ys, total_length=TIME, **packing)
    their_outputs = [their_ys, *parts_of(their_state)]
    sum((o * torch.tensor(w)).sum() for o, w in zip(their_outputs, weights, strict=True)).backward()

    for own, their in zip(outputs, their_outputs, strict=True):
        assert_close(own, their.detach(), 1e-10)
    their_parameters = dict(twin.named_parameters())
    pairs = [
        *zip(leaves, theirs, strict=True),
        *((p, their_parameters[name]) for name, p in layer.named_parameters()),
    ]
    assert len(pairs) == len(leaves) + len(their_parameters)
    for own, their in pairs:
        assert own.grad is not None
        assert_close(own.grad, their.grad, 1e-10)
    assert leaves[0].grad is not None
    assert not leaves[0].grad.numpy()[padding].any()


@every_kind
@one_or_both_directions
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
def test_a_sequence_without_a_batch_equals_torchs(
    torch: Any,
    rng: np.random.Generator,
    kind: str,
    bidirectional: bool,
    batch_first: bool,
    given: bool,
) -> None:
    settings = {"bidirectional": bidirectional, "batch_first": batch_first}
    layer = make_layer(kind, 2, **settings)
    twin = torch_layer(torch, kind, 2, **settings)
    twin.load_state_dict({n: torch.tensor(p.numpy()) for n, p in layer.state_dict().items()})
    xs = rng.normal(size=(TIME, INPUTS))
    state = random_state(kind, 4 if bidirectional else 2, rng, ()) if given else []
    ys, last = layer(mg.tensor(xs), as_state(list(map(mg.tensor, state))) if given else None)
    their_ys, their_last = twin(
        torch.tensor(xs), as_state(list(map(torch.tensor, state))) if given else None
    )
    assert_close(ys, their_ys.detach(), 1e-10)
    for own, their in zip(parts_of(last), parts_of(their_last), strict=True):
        assert_close(own, their.detach(), 1e-10)


@every_kind
@up_to_three_layers
@with_and_without_bias
@one_or_both_directions
def test_weights_move_to_and_from_torch_by_name(
    torch: Any, rng: np.random.Generator, kind: str, layers: int, bias: bool, bidirectional: bool
) -> None:
    settings = {"bias": bias, "bidirectional": bidirectional}
    layer = make_layer(kind, layers, **settings)
    twin = torch_layer(torch, kind, layers, **settings)
    assert [(name, value.shape) for name, value in layer.state_dict().items()] == [
        (name, tuple(value.shape)) for name, value in twin.state_dict().items()
    ]
    xs = sequence(rng)
    layer.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    assert_close(layer(xs)[0], twin(torch.tensor(xs.numpy()))[0].detach(), 1e-10)

    other = torch_layer(torch, kind, layers, **settings)
    other.load_state_dict(
        {name: torch.from_numpy(value.numpy()) for name, value in layer.state_dict().items()}
    )
    for name, value in twin.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


# --------------------------------------------------------------------------------------
# Against its own cells
# --------------------------------------------------------------------------------------


def by_cell(state: Any) -> list[Any]:
    """The state of every cell, from the state of all."""
    if isinstance(state, tuple):
        return list(zip(*state, strict=True))
    return list(state)


def run_cells(layer: rnn.Recurrent, xs: Tensor, state: Any) -> tuple[Tensor, list[Any]]:
    """The same as the layer, by one call of a cell after another."""
    states = iter(by_cell(state))
    last, ys = [], list(xs)
    for cells in layer.layers:
        both = []
        for cell, order in zip(cells, (1, -1), strict=False):
            y, part = [], next(states)
            for x in ys[::order]:
                out, part = cell(x, part)
                y.append(out)
            both.append(y[::order])
            last.append(part)
        ys = [mg.concatenate(parts, axis=-1) for parts in zip(*both, strict=True)]
    return mg.stack(ys), last


@every_kind
@up_to_three_layers
@one_or_both_directions
def test_a_layer_equals_its_cells_called_step_by_step(
    rng: np.random.Generator, kind: str, layers: int, bidirectional: bool
) -> None:
    layer = make_layer(kind, layers, bidirectional=bidirectional)
    xs = sequence(rng)
    state = as_state([mg.tensor(p) for p in random_state(kind, len(layer.cells), rng)])
    parameters = list(layer.parameters())
    with mg.Tape() as tape:
        ys, last = layer(xs, state)
        expected_ys, expected_last = run_cells(layer, xs, state)
        weight = mg.tensor(rng.normal(size=ys.shape))
        loss, expected_loss = (ys * weight).sum(), (expected_ys * weight).sum()

    assert_close(ys, expected_ys, 1e-13)
    for own, expected in zip(by_cell(last), expected_last, strict=True):
        for part, expected_part in zip(parts_of(own), parts_of(expected), strict=True):
            assert_close(part, expected_part, 1e-13)
    gradients = tape.gradient(loss, parameters, retain=True)
    expected_gradients = tape.gradient(expected_loss, parameters)
    for own, expected in zip(gradients, expected_gradients, strict=True):
        assert_close(own, expected, 1e-12)


@every_kind
@one_or_both_directions
def test_gradients_to_second_order(
    rng: np.random.Generator, kind: str, bidirectional: bool
) -> None:
    layer = make_layer(kind, 2, bidirectional=bidirectional)
    weights = [p.numpy() for p in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]
    valid = np.array([[True, True], [True, False], [False, True], [True, True]])
    starts = np.array([[False, True], [False, False], [False, True], [True, False]])

    def run(xs: Tensor, *values: Tensor) -> Tensor:
        for name, value in zip(names, values, strict=True):
            setattr(layer, name, value)
        ys, state = layer(xs, mask=valid, reset=starts)
        return ys.sum() + mg.stack([(part * part).sum() for part in parts_of(state)]).sum()

    order = 1 if kind == "relu" else 2  # relu has no second derivative to be checked
    check_gradients(run, rng.normal(size=(4, BATCH, INPUTS)), *weights, order=order)


@every_kind
def test_a_sequence_can_be_run_in_pieces(rng: np.random.Generator, kind: str) -> None:
    layer = make_layer(kind)
    xs = sequence(rng, 7)
    ys, last = layer(xs)
    first, state = layer(xs[:3])
    second, state = layer(xs[3:], state)
    assert_close(ys, mg.concatenate([first, second]), 1e-14)
    for own, expected in zip(parts_of(state), parts_of(last), strict=True):
        assert_close(own, expected, 1e-14)


@every_kind
def test_the_default_state_is_zeros(rng: np.random.Generator, kind: str) -> None:
    layer = make_layer(kind, 3)
    zeros = layer.initial_state(BATCH)
    shapes = [part.shape for part in random_state(kind, 3, rng)]
    assert [part.shape for part in parts_of(zeros)] == shapes
    for part in parts_of(zeros):
        assert part.dtype == "float64"
        assert not part.numpy().any()
    xs = sequence(rng)
    np.testing.assert_array_equal(layer(xs)[0].numpy(), layer(xs, zeros)[0].numpy())


# --------------------------------------------------------------------------------------
# Parameters as attributes
# --------------------------------------------------------------------------------------


def test_parameters_are_attributes_under_torchs_names() -> None:
    layer = make_layer("lstm")
    named = dict(layer.named_parameters())
    assert len(named) == 8
    for name, parameter in named.items():
        assert getattr(layer, name) is parameter
    assert layer.weight_hh_l1 is layer.cells[1].weight_hh
    assert layer.weight_ih_l1.shape == (4 * HIDDEN, HIDDEN)


@pytest.mark.parametrize("name", ["weight_hh_l2", "weight_hh", "nonsense"])
def test_what_is_not_there_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"LSTM has no attribute '{name}'"):
        getattr(make_layer("lstm"), name)


def test_a_layer_without_bias_has_none_of_its_names() -> None:
    layer = make_layer("gru", bias=False)
    assert not hasattr(layer, "bias_ih_l0")
    assert sorted(layer.state_dict()) == [f"weight_{w}_l{k}" for w in ("hh", "ih") for k in (0, 1)]


@every_kind
def test_an_assigned_parameter_is_the_one_that_is_used_and_trained(
    rng: np.random.Generator, kind: str
) -> None:
    layer = make_layer(kind)
    xs = sequence(rng)
    before = layer(xs)[0].numpy()
    old = layer.weight_hh_l1
    layer.weight_hh_l1 = new = nn.Parameter(old.numpy() * 2.0)
    assert layer.weight_hh_l1 is new
    assert layer.cells[1].weight_hh is new
    assert "weight_hh_l1" not in vars(layer)
    assert dict(layer.named_parameters())["weight_hh_l1"] is new
    assert all(parameter is not old for parameter in layer.parameters())
    with mg.Tape() as tape:
        ys, _ = layer(xs)
        loss = ys.sum()
    tape.backward(loss)
    assert old.grad is None
    assert new.grad is not None
    assert new.grad.numpy().any()
    assert (ys.numpy() != before).any()


@pytest.mark.parametrize(
    ("layer_type", "options"),
    [
        (rnn.LSTM, {"layer_norm": True, "proj_size": 2}),
        (rnn.LSTM, {"peepholes": "diagonal", "coupled": True}),
        (rnn.GRU, {"layer_norm": True, "reset": "before"}),
    ],
)
def test_options_of_the_cell_reach_every_cell(
    rng: np.random.Generator, layer_type: type[Any], options: dict[str, Any]
) -> None:
    layer = layer_type(INPUTS, HIDDEN, 2, bidirectional=True, dtype="float64", rng=0, **options)
    for _, parameter in layer.named_parameters():
        parameter.rebind(mg.tensor(rng.normal(size=parameter.shape)))
    own = [list(cell.state_dict()) for cell in layer.cells]
    names = list(layer.state_dict())
    assert len(names) == sum(map(len, own)), "no two cells share a name"
    xs = sequence(rng)
    ys, _ = layer(xs)
    expected, _ = run_cells(layer, xs, layer.initial_state(BATCH))
    assert_close(ys, expected, 1e-13)
    twin = layer_type(INPUTS, HIDDEN, 2, bidirectional=True, dtype="float64", rng=1, **options)
    twin.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(twin(xs)[0].numpy(), ys.numpy())


def test_a_cell_may_be_that_of_two_layers(rng: np.random.Generator) -> None:
    cell = rnn.GRUCell(INPUTS, INPUTS, dtype="float64", rng=0)
    layer = rnn.Recurrent([cell, cell])
    assert len(list(layer.parameters())) == 4
    xs = sequence(rng)
    ys, _ = layer(xs)
    np.testing.assert_array_equal(ys.numpy(), rnn.unroll(cell, rnn.unroll(cell, xs)[0])[0].numpy())


def test_other_attributes_stay_the_layers_own() -> None:
    layer = make_layer("gru")
    layer.note = "mine"
    assert layer.note == "mine"
    assert not hasattr(layer.cells[0], "note")


class Both(nn.Module):
    def __init__(self, layers: list[rnn.Recurrent]) -> None:
        self.layers = layers


def test_a_parameter_shared_by_two_layers_is_one(rng: np.random.Generator) -> None:
    layers = [make_layer("gru", 1, rng=seed) for seed in (1, 2)]
    shared = layers[0].weight_hh_l0
    layers[1].weight_hh_l0 = shared
    both = Both(layers)
    assert [name for name, found in both.named_parameters() if found is shared] == [
        "layers.0.weight_hh_l0"
    ]
    assert len(list(both.parameters())) == 7
    assert len(both.state_dict()) == 8

    xs = sequence(rng)
    apart = copy.deepcopy(layers[0]), copy.deepcopy(layers[1])
    for pair in (layers, apart):
        with mg.Tape() as tape:
            loss = (pair[0](xs)[0] * pair[1](xs)[0]).sum()
        tape.backward(loss)
    parts = [layer.weight_hh_l0.grad for layer in apart]
    assert shared.grad is not None
    assert_close(shared.grad, parts[0] + parts[1], 1e-13)


def test_a_parameter_shared_inside_a_layer_is_one() -> None:
    layer = make_layer("tanh")
    layer.weight_hh_l1 = layer.weight_hh_l0
    names = [name for name, _ in layer.named_parameters()]
    assert "weight_hh_l0" in names
    assert "weight_hh_l1" not in names
    assert "weight_hh_l1" in layer.state_dict()


# --------------------------------------------------------------------------------------
# Dropout and modes
# --------------------------------------------------------------------------------------


def test_dropout_acts_between_the_layers_alone(rng: np.random.Generator) -> None:
    layer = make_layer("lstm", 3, dropout=0.5, rng=5)
    drop = nn.Dropout(0.5, rng=copy.deepcopy(layer.rng))
    xs = sequence(rng)
    ys, (h, c) = layer(xs)
    expected = xs
    for k, cell in enumerate(layer.cells):
        expected = drop(expected) if k else expected
        expected, (expected_h, expected_c) = rnn.unroll(cell, expected)
        np.testing.assert_array_equal(h.numpy()[k], expected_h.numpy())
        np.testing.assert_array_equal(c.numpy()[k], expected_c.numpy())
    np.testing.assert_array_equal(ys.numpy(), expected.numpy())
    assert (ys.numpy() != make_layer("lstm", 3, rng=5)(xs)[0].numpy()).any()


class Seen:
    """A cell without memory that remembers what it was given."""

    def __init__(self) -> None:
        self.xs: list[np.ndarray] = []

    def __call__(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.xs.append(x.numpy())
        return x, state


@pytest.mark.parametrize("where", ["input_dropout", "dropout"])
@pytest.mark.parametrize("variational", [False, True])
def test_dropout_drops_with_its_probability_and_keeps_the_mean(
    where: str, variational: bool
) -> None:
    lower, upper = Seen(), Seen()
    options: dict[str, Any] = {where: 0.25, "variational": variational}
    layer = rnn.Recurrent([lower, upper], rng=0, **options)
    xs = mg.tensor(np.ones((6, 40, 50)))
    layer(xs)
    seen = np.stack((lower if where == "input_dropout" else upper).xs)
    assert set(np.unique(seen)) == {0.0, 1.0 / 0.75}
    # 2,000 independent draws at least: the standard error is below 0.01.
    assert abs((seen == 0.0).mean() - 0.25) < 0.04
    assert (seen == seen[0]).all() == variational
    assert (seen[:, 0] != seen[:, 1]).any(), "every sequence has a mask of its own"
    first = seen
    layer(xs)
    seen = np.stack((lower if where == "input_dropout" else upper).xs[6:])
    assert (seen != first).any(), "every call has masks of its own"
    layer.eval()
    np.testing.assert_array_equal(layer(xs)[0].numpy(), xs.numpy())


@pytest.mark.parametrize("kind", ["tanh", "lstm", "projected lstm", "gru"])
@pytest.mark.parametrize("batch", [(BATCH,), ()], ids=["batch", "no batch"])
def test_recurrent_dropout_masks_h_alike_at_all_steps(
    rng: np.random.Generator, kind: str, batch: tuple[int, ...]
) -> None:
    layer = make_layer(kind, 1, recurrent_dropout=0.5, rng=3)
    drop = nn.Dropout(0.5, rng=copy.deepcopy(layer.rng))
    xs = mg.tensor(rng.normal(size=(TIME, *batch, INPUTS)))
    ys, _ = layer(xs)
    (cell,) = layer.cells
    mask = drop(mg.tensor(np.ones((*batch, cell.output_size))))
    assert 0.0 in mask.numpy()
    state, expected = None, []
    for x in xs:
        with cell.using(recurrent_mask=mask):
            y, state = cell(x, state)
        expected.append(y)
    assert_close(ys, mg.stack(expected), 1e-14)
    assert cell.recurrent_mask is None
    plain = make_layer(kind, 1, rng=3)(xs)[0].numpy()
    assert (ys.numpy() != plain).any()
    np.testing.assert_array_equal(layer.eval()(xs)[0].numpy(), plain)


@every_kind
def test_weight_dropout_thins_the_recurrent_matrix_once_and_trains_the_raw_one(
    rng: np.random.Generator, kind: str
) -> None:
    layer = make_layer(kind, 1, weight_dropout=0.5, rng=3)
    raw = layer.weight_hh_l0
    mask = nn.Dropout(0.5, rng=copy.deepcopy(layer.rng))(mg.tensor(np.ones(raw.shape)))
    xs = sequence(rng)
    with mg.Tape() as tape:
        ys, _ = layer(xs)
        loss = (ys * ys).sum()
    tape.backward(loss)
    assert layer.weight_hh_l0 is raw
    rnn.check_all_received_grad(layer)

    twin = make_layer(kind, 1, rng=3)
    twin.weight_hh_l0 = thinned = nn.Parameter(raw.numpy() * mask.numpy())
    with mg.Tape() as tape:
        expected, _ = twin(xs)
        loss = (expected * expected).sum()
    tape.backward(loss)
    assert_close(ys, expected, 1e-14)
    assert thinned.grad is not None
    assert raw.grad is not None
    assert_close(raw.grad, thinned.grad * mask, 1e-13)
    plain = make_layer(kind, 1, rng=3)(xs)[0].numpy()
    np.testing.assert_array_equal(layer.eval()(xs)[0].numpy(), plain)


def test_a_weight_replaced_by_a_dropped_copy_is_found_to_receive_no_gradient() -> None:
    layer = make_layer("gru", 1)
    raw = nn.Parameter(layer.weight_hh_l0.numpy())
    layer.weight_hh_raw = raw
    with mg.Tape() as tape:
        layer.weight_hh_l0 = nn.Parameter(nn.Dropout(0.5, rng=0)(raw).detach())
        loss = layer(zeros(TIME, BATCH, INPUTS))[0].sum()
    tape.backward(loss)
    with pytest.raises(ValueError, match="no gradient reached weight_hh_raw: either the loss"):
        rnn.check_all_received_grad(layer)
    with pytest.raises(ValueError, match=r"no gradient reached parameter 1:"):
        rnn.check_all_received_grad([layer.weight_hh_l0, raw])
    with pytest.raises(ValueError, match="there are no parameters"):
        rnn.check_all_received_grad([])


@every_kind
def test_dropout_acts_in_training_alone_and_is_reproducible(
    rng: np.random.Generator, kind: str
) -> None:
    xs = sequence(rng)
    layer, again = (make_layer(kind, dropout=0.5, rng=9) for _ in range(2))
    plain = make_layer(kind, rng=9)(xs)[0].numpy()
    first, second = layer(xs)[0].numpy(), layer(xs)[0].numpy()
    assert (first != second).any()
    np.testing.assert_array_equal(again(xs)[0].numpy(), first)
    np.testing.assert_array_equal(again(xs)[0].numpy(), second)
    np.testing.assert_array_equal(layer.eval()(xs)[0].numpy(), plain)
    assert (layer.train()(xs)[0].numpy() != plain).any()


def test_train_and_eval_reach_every_module() -> None:
    layer = make_layer("gru", dropout=0.5)
    for mode in (False, True, False):
        layer.train(mode)
        assert [module.training for module in layer.modules()] == [mode] * 3


# --------------------------------------------------------------------------------------
# Initial states, residual connections, outputs
# --------------------------------------------------------------------------------------


@every_kind
@one_or_both_directions
def test_a_learned_initial_state_is_a_parameter(
    rng: np.random.Generator, kind: str, bidirectional: bool
) -> None:
    layer = make_layer(kind, 2, bidirectional=bidirectional, learn_initial_state=True)
    plain = make_layer(kind, 2, bidirectional=bidirectional)
    learned = {n: p for n, p in layer.named_parameters() if n.startswith("initial_")}
    assert sorted(learned.keys() | plain.state_dict().keys()) == sorted(layer.state_dict())
    labels = ["l0", "l0_reverse", "l1", "l1_reverse"] if bidirectional else ["l0", "l1"]
    parts = [".0", ".1"] if "lstm" in kind else [""]
    assert list(learned) == [f"initial_{label}{part}" for label in labels for part in parts]
    xs = sequence(rng)
    np.testing.assert_array_equal(layer(xs)[0].numpy(), plain(xs)[0].numpy())

    for parameter in learned.values():
        parameter.rebind(mg.tensor(rng.normal(size=parameter.shape)))
    state = layer.initial_state(BATCH)
    assert [p.shape for p in parts_of(state)] == [
        p.shape for p in parts_of(plain.initial_state(BATCH))
    ]
    leaves = [mg.tensor(part.numpy(), requires_grad=True) for part in parts_of(state)]
    with mg.Tape() as tape:
        ys, _ = layer(xs)
        expected, _ = plain(xs, as_state(leaves))
        assert_close(ys, expected, 1e-14)
        loss, expected_loss = (ys * ys).sum(), (expected * expected).sum()
    tape.backward(loss, retain=True)
    tape.backward(expected_loss)
    gradients = [p.grad.numpy() for p in learned.values() if p.grad is not None]
    for i, leaf in enumerate(leaves):
        assert leaf.grad is not None
        summed = leaf.grad.numpy().sum(axis=1)  # every sequence starts from the same state
        np.testing.assert_allclose(np.stack(gradients[i :: len(leaves)]), summed, atol=1e-12)


def test_a_reset_returns_to_the_learned_state(rng: np.random.Generator) -> None:
    layer = make_layer("lstm", 2, learn_initial_state=True)
    for name, parameter in layer.named_parameters():
        if name.startswith("initial_"):
            parameter.rebind(mg.tensor(rng.normal(size=parameter.shape)))
    xs = sequence(rng, 6)
    starts = np.zeros((6, BATCH), bool)
    starts[2] = True
    ys, last = layer(xs, reset=starts)
    first, _ = layer(xs[:2])
    second, expected = layer(xs[2:])
    assert_close(ys, mg.concatenate([first, second]), 1e-14)
    for own, part in zip(last, expected, strict=True):
        assert_close(own, part, 1e-14)


@one_or_both_directions
@pytest.mark.parametrize("outputs", ["sequence", "last"])
@pytest.mark.parametrize("lengths", [None, [3, 5]])
def test_a_residual_layer_adds_what_it_reads(
    rng: np.random.Generator, bidirectional: bool, outputs: Any, lengths: list[int] | None
) -> None:
    settings: dict[str, Any] = {"bidirectional": bidirectional}
    layer = make_layer("gru", 3, residual=True, outputs=outputs, **settings)
    xs = sequence(rng)
    ys, last = layer(xs, lengths=lengths)
    expected, states = xs, []
    for k, cells in enumerate(layer.layers):
        single = rnn.Recurrent([cells], batch_first=False)
        out, state = single(expected, lengths=lengths)
        expected = out + expected if k else out
        states += state
    assert_close(last, mg.stack(states), 1e-14)
    if outputs == "last":
        ends = np.array(lengths or [TIME] * BATCH) - 1
        sequences = expected.numpy()
        forward = sequences[ends, range(BATCH), :HIDDEN]
        expected = mg.tensor(np.concatenate([forward, sequences[0, :, HIDDEN:]], axis=1))
    assert_close(ys, expected, 1e-14)


@every_kind
@pytest.mark.parametrize("outputs", ["sequence", "last", "states"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_single_sequence_is_a_batch_of_one(
    rng: np.random.Generator, kind: str, outputs: Any, batch_first: bool
) -> None:
    settings: dict[str, Any] = {"residual": True, "learn_initial_state": True, "outputs": outputs}
    layer = make_layer(kind, 2, bidirectional=True, batch_first=batch_first, **settings)
    xs = mg.tensor(rng.normal(size=(TIME, INPUTS)))
    ys, state = layer(xs)
    batch_axis = 0 if batch_first or outputs == "last" else 1
    expected, expected_state = layer(xs[None] if batch_first else xs[:, None])
    assert_close(ys, mg.squeeze(expected, batch_axis), 1e-14)
    for own, part in zip(parts_of(state), parts_of(expected_state), strict=True):
        assert_close(own, mg.squeeze(part, -2), 1e-14)


def test_a_residual_connection_of_other_features_is_refused(rng: np.random.Generator) -> None:
    layer = rnn.Recurrent([rnn.GRUCell(3, 4), rnn.GRUCell(4, 1)], residual=True)
    with pytest.raises(
        ValueError, match=r"what layer 1 reads, \(5, 2, 4\), to its outputs, \(5, 2, 1"
    ):
        layer(mg.tensor(rng.normal(size=(TIME, BATCH, 3)), dtype="float32"))


@every_kind
@one_or_both_directions
@pytest.mark.parametrize("lengths", [None, [3, 5]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_outputs_and_all_states(
    rng: np.random.Generator,
    kind: str,
    bidirectional: bool,
    lengths: list[int] | None,
    batch_first: bool,
) -> None:
    settings: dict[str, Any] = {"bidirectional": bidirectional, "batch_first": batch_first}
    xs = mg.tensor(rng.normal(size=(BATCH, TIME, INPUTS) if batch_first else (TIME, BATCH, INPUTS)))
    ys, last = make_layer(kind, 2, **settings)(xs, lengths=lengths)
    last_ys, same = make_layer(kind, 2, outputs="last", **settings)(xs, lengths=lengths)
    all_ys, states = make_layer(kind, 2, outputs="states", **settings)(xs, lengths=lengths)
    np.testing.assert_array_equal(all_ys.numpy(), ys.numpy())
    hs = parts_of(last)[0].numpy()
    directions = 2 if bidirectional else 1
    np.testing.assert_array_equal(last_ys.numpy(), np.concatenate(hs[-directions:], axis=1))
    for part, own, every in zip(parts_of(last), parts_of(same), parts_of(states), strict=True):
        np.testing.assert_array_equal(own.numpy(), part.numpy())
        assert every.shape == (TIME, *part.shape)
        for i in range(2 * directions):
            end = 0 if bidirectional and i % 2 else -1
            np.testing.assert_array_equal(every.numpy()[end, i], part.numpy()[i])
    if lengths is None and not bidirectional:
        h = parts_of(states)[0].numpy()[:, -1]
        np.testing.assert_array_equal(h.swapaxes(0, 1) if batch_first else h, ys.numpy())


# --------------------------------------------------------------------------------------
# Cells of the user
# --------------------------------------------------------------------------------------


def averaging(x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A function whose state is a dictionary."""
    state = state or {"mean": 0.0 * x, "others": [0.0 * x]}
    mean = 0.5 * state["mean"] + 0.5 * x
    return mean + state["others"][0], {"mean": mean, "others": [x]}


class Affine(nn.Module):
    """A module with parameters, and an initial state of its own."""

    def __init__(self, features: int) -> None:
        self.linear = nn.Linear(features, features, dtype="float64", rng=0)

    def initial_state(self, batch_size: int) -> Tensor:
        return mg.tensor(np.ones((batch_size, self.linear.weight.shape[0])))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = self.initial_state(x.shape[0]) if state is None else state
        y = mg.tanh(self.linear(state) + x)
        return y, y


def mixed_layer(**options: Any) -> rnn.Recurrent:
    cell = rnn.LSTMCell(INPUTS, INPUTS, dtype="float64", rng=0)
    return rnn.Recurrent(
        [averaging, (cell, Affine(INPUTS)), lambda x, state: (2.0 * x, None)], **options
    )


def test_any_cells_make_a_layer(rng: np.random.Generator) -> None:
    layer = mixed_layer()
    xs = sequence(rng)
    ys, states = layer(xs)
    first, state = rnn.unroll(averaging, xs)
    cell, affine = layer.layers[1]
    forward, lstm_state = rnn.unroll(cell, first)
    backward, affine_state = rnn.unroll(affine, first, reverse=True)
    expected = 2.0 * mg.concatenate([forward, backward], axis=-1)
    np.testing.assert_array_equal(ys.numpy(), expected.numpy())
    assert_close(states[0]["others"][0], state["others"][0], 0)
    assert_close(states[1][1], lstm_state[1], 0)
    assert_close(states[2], affine_state, 0)
    assert states[3] is None
    again, _ = layer(xs, states)
    assert (again.numpy() != ys.numpy()).any()


def test_cells_of_the_user_are_masked_reset_and_differentiated(rng: np.random.Generator) -> None:
    cell = rnn.GRUCell(INPUTS, INPUTS, dtype="float64", rng=0)
    layer = rnn.Recurrent([averaging, (cell, Affine(INPUTS))], batch_first=True)
    valid = np.array([[True, False, True, True], [False, True, True, False]])
    starts = np.array([[False, False, True, False], [False, False, True, False]])
    xs = rng.normal(size=(2, 4, INPUTS))
    ys, states = layer(mg.tensor(np.where(valid[..., None], xs, np.nan)), mask=valid, reset=starts)
    for row in range(2):
        keep = valid[row]
        alone, own = layer(mg.tensor(xs[row : row + 1, keep]), reset=starts[row : row + 1, keep])
        assert_close(ys[row, mg.tensor(keep)], alone[0], 1e-14)
        assert not ys.numpy()[row, ~keep].any()
        assert_close(states[0]["mean"][row], own[0]["mean"][0], 1e-14)
        assert_close(states[2][row], own[2][0], 1e-14)
    check_gradients(lambda leaf: layer(leaf, mask=valid, reset=starts)[0], xs)


def test_names_and_modes_of_mixed_cells() -> None:
    layer = mixed_layer()
    names = ["bias_hh_l1", "bias_ih_l1", "l1_reverse.linear.bias", "l1_reverse.linear.weight"]
    assert sorted(layer.state_dict()) == [*names, "weight_hh_l1", "weight_ih_l1"]
    assert layer.weight_hh_l1 is layer.layers[1][0].weight_hh
    layer.eval()
    assert not layer.layers[1][1].linear.training


def test_a_learned_state_of_a_users_cell_starts_as_its_own() -> None:
    layer = rnn.Recurrent([Affine(INPUTS)], learn_initial_state=True)
    np.testing.assert_array_equal(layer.initial_l0.numpy(), np.ones(INPUTS))
    (state,) = layer.initial_state(BATCH)
    assert state.shape == (BATCH, INPUTS)
    (state,) = mixed_layer().initial_state(BATCH)[2:3]
    np.testing.assert_array_equal(state.numpy(), np.ones((BATCH, INPUTS)))


# --------------------------------------------------------------------------------------
# Copies
# --------------------------------------------------------------------------------------


def pickled(layer: rnn.Recurrent) -> Any:
    return pickle.loads(pickle.dumps(layer))


@every_kind
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_computes_the_same_and_is_independent(
    rng: np.random.Generator, kind: str, duplicate: Callable[[rnn.Recurrent], Any]
) -> None:
    options: dict[str, Any] = {"variational": True, "learn_initial_state": True}
    layer = make_layer(kind, dropout=0.5, weight_dropout=0.5, bidirectional=True, **options)
    twin = duplicate(layer)
    xs = sequence(rng)
    np.testing.assert_array_equal(twin(xs)[0].numpy(), layer(xs)[0].numpy())
    kept = layer.weight_ih_l0.numpy().copy()
    with mg.Tape() as tape:
        loss = twin(xs)[0].sum()
    tape.backward(loss)
    mg.optim.SGD(twin.parameters(), lr=0.1).step()
    assert (twin.weight_ih_l0.numpy() != kept).any()
    np.testing.assert_array_equal(layer.weight_ih_l0.numpy(), kept)
    assert layer.weight_ih_l0.grad is None
    assert list(twin.state_dict()) == list(layer.state_dict())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, lambda layer: layer])
def test_a_cell_in_two_places_has_the_names_of_both(
    rng: np.random.Generator, duplicate: Callable[[Any], Any]
) -> None:
    cell = rnn.LSTMCell(HIDDEN, HIDDEN, layer_norm=True, dtype="float64", rng=0)
    layer = duplicate(rnn.Recurrent([cell, cell]))
    names = {name.removesuffix("_l0").replace("_l0.", ".") for name, _ in layer.named_parameters()}
    assert names == set(
        rnn.LSTMCell(HIDDEN, HIDDEN, layer_norm=True, rng=0).state_dict()
    )  # each once, by its name in the lower place
    assert len(layer.state_dict()) == 2 * len(names)
    assert layer.weight_hh_l0 is layer.weight_hh_l1

    xs = mg.tensor(rng.normal(size=(TIME, BATCH, HIDDEN)))
    expected, _ = rnn.unroll(cell, rnn.unroll(cell, xs)[0])
    np.testing.assert_array_equal(layer(xs)[0].numpy(), expected.numpy())


def test_a_cell_keeps_its_names_in_one_layer_when_another_has_it_too() -> None:
    cell = rnn.GRUCell(HIDDEN, HIDDEN, rng=0)
    encoder = rnn.Recurrent([cell])
    decoder = rnn.Recurrent([rnn.RNNCell(INPUTS, HIDDEN, rng=1), cell])
    assert list(encoder.state_dict()) == [
        *["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    ]
    assert decoder.weight_hh_l1 is encoder.weight_hh_l0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_shares_what_the_original_shares(
    duplicate: Callable[[rnn.Recurrent], Any],
) -> None:
    layer = make_layer("gru")
    layer.weight_hh_l1 = layer.weight_hh_l0
    twin = duplicate(layer)
    assert twin.weight_hh_l1 is twin.weight_hh_l0
    assert twin.weight_hh_l0 is not layer.weight_hh_l0


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "num_layers is at least 1, not 0"),
        ({"num_layers": 1, "dropout": 0.5}, "dropout is applied between layers, and there is only"),
        ({"num_layers": 1, "residual": True}, "residual is added between layers, and there is on"),
        ({"num_layers": 2, "dropout": 1.0}, r"dropout is a probability, in \[0, 1\), not 1.0"),
        ({"num_layers": 2, "dropout": -0.1}, "-0.1"),
        ({"input_dropout": 1.5}, "input_dropout is a probability"),
        ({"recurrent_dropout": 1.5}, "recurrent_dropout is a probability"),
        ({"weight_dropout": 1.5}, "weight_dropout is a probability"),
        ({"outputs": "all"}, "'sequence', 'last' or 'states', not 'all'"),
        ({"nonlinearity": "sigmoid"}, "'tanh' or 'relu', not 'sigmoid'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.RNN(INPUTS, HIDDEN, **settings)


@pytest.mark.parametrize("shape", [(INPUTS,), (1, TIME, BATCH, INPUTS), ()])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sequence_of_other_axes_is_refused(shape: tuple[int, ...], batch_first: bool) -> None:
    layout = "(batch, time, 3)" if batch_first else "(time, batch, 3)"
    with pytest.raises(ValueError, match="GRU expects xs") as error:
        make_layer("gru", batch_first=batch_first)(zeros(*shape))
    assert layout in str(error.value)
    assert str(shape) in str(error.value)


@every_kind
def test_a_sequence_of_other_features_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"3\), not \(5, 2, 7\)"):
        make_layer(kind)(zeros(TIME, BATCH, 7))
    with pytest.raises(ValueError, match=r"xs \(batch, time, 3\), not \(2, 5, 7\)"):
        make_layer(kind, batch_first=True)(zeros(BATCH, TIME, 7))


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sequence_of_no_steps_is_refused(batch_first: bool) -> None:
    shape = (BATCH, 0, INPUTS) if batch_first else (0, BATCH, INPUTS)
    with pytest.raises(ValueError, match="at least one step"):
        make_layer("lstm", batch_first=batch_first)(zeros(*shape))


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("gru", zeros(BATCH, HIDDEN)),
        ("gru", zeros(1, BATCH, HIDDEN)),
        ("gru", zeros(2, 1, HIDDEN)),
        ("gru", zeros(2, BATCH, INPUTS)),
        ("gru", (zeros(2, BATCH, HIDDEN), zeros(2, BATCH, HIDDEN))),
        ("gru", [zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN)]),
        ("lstm", zeros(2, BATCH, HIDDEN)),
        ("lstm", (zeros(2, BATCH, HIDDEN),)),
        ("lstm", (zeros(2, BATCH, HIDDEN), zeros(1, BATCH, HIDDEN))),
        ("lstm", (zeros(2, BATCH, HIDDEN), None)),
        ("lstm", [zeros(2, BATCH, HIDDEN), zeros(2, BATCH, HIDDEN)]),
    ],
)
def test_a_state_of_another_shape_or_nesting_is_refused(kind: str, state: Any) -> None:
    with pytest.raises(ValueError, match=r"expects a state of shape \(+2, 2, 4\)"):
        make_layer(kind)(zeros(TIME, BATCH, INPUTS), state)


def test_the_batch_of_a_batch_first_sequence_is_its_first_axis() -> None:
    layer = make_layer("gru", batch_first=True)
    with pytest.raises(ValueError, match=r"expects a state of shape \(2, 6, 4\), not \(2, 2, 4\)"):
        layer(zeros(6, TIME, INPUTS), zeros(2, BATCH, HIDDEN))


def test_a_weight_that_is_assigned_again_and_again_is_the_one_used() -> None:
    layer = rnn.GRU(2, 3, dtype="float64", rng=0)
    xs = mg.tensor(np.ones((4, 1, 2)))
    found = []
    for scale in (1.0, 0.5, 0.25):
        layer.weight_hh_l0 = layer.weight_hh_l0 * scale  # a tensor, as weight dropping makes it
        found.append(layer(xs)[0].numpy()[-1, 0, 0])
    assert len(set(found)) == 3


def test_a_bias_can_be_given_to_a_layer_that_has_none() -> None:
    layer = rnn.LSTM(2, 3, bias=False, dtype="float64", rng=0)
    xs = mg.tensor(np.ones((4, 1, 2)))
    before = layer(xs)[0].numpy()
    layer.bias_ih_l0 = nn.Parameter(np.ones(12))
    assert "bias_ih_l0" in layer.state_dict()
    assert not np.allclose(layer(xs)[0].numpy(), before)


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([], {}, "there are no cells"),
        ([(averaging, averaging, averaging)], {}, "layer 0 is a cell, or a pair of a cell and one"),
        ([averaging, "gru"], {}, "layer 1 is a cell, or a pair"),
        ([averaging], {"weight_dropout": 0.5}, "weight_hh, which averaging has not"),
        ([averaging], {"recurrent_dropout": 0.5}, "product with weights, and averaging is no"),
        ([averaging], {"learn_initial_state": True}, "initial state of averaging, its shape must"),
        (
            [(rnn.GRUCell(3, 4), rnn.GRUCell(3, 4)), rnn.RNNCell(4, 4)],
            {},
            r"the RNNCell of layer 1 reads 4 features, and the layer below gives 4 \+ 4",
        ),
    ],
)
def test_cells_and_options_that_do_not_go_together_are_refused(
    cells: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.Recurrent(cells, **options)


def test_a_cell_that_is_not_in_a_list_is_refused() -> None:
    cell: Any = rnn.GRUCell(INPUTS, HIDDEN, rng=0)
    with pytest.raises(TypeError, match=r"for one, write \[cell\]"):
        rnn.Recurrent(cell)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="proj"):
        rnn.GRU(INPUTS, HIDDEN, proj_size=2)


@pytest.mark.parametrize("state", [zeros(BATCH, 4), (zeros(BATCH, 4),), {"a": zeros(BATCH, 4)}])
def test_the_state_of_mixed_cells_is_one_for_each(state: Any) -> None:
    layer = rnn.Recurrent([rnn.GRUCell(3, 4), rnn.GRUCell(4, 4)])
    with pytest.raises(ValueError, match="a tuple with the state of each of its 2 cells, not"):
        layer(zeros(TIME, BATCH, 3), state)


def test_looks() -> None:
    layer = rnn.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.5, proj_size=2)
    assert repr(layer).startswith("LSTM(3, 4, ")
    assert repr(layer).endswith("num_layers=2, bidirectional=True, dropout=0.5)")
    assert repr(rnn.GRU(3, 4)) == "GRU(3, 4, num_layers=1)"
    assert repr(rnn.GRU(3, 4, learn_initial_state=True, batch_first=True)).endswith(
        "num_layers=1, batch_first=True, learn_initial_state=True)"
    )
    mixed = rnn.Recurrent([averaging, (rnn.GRUCell(3, 4), Affine(3))], outputs="last")
    assert repr(mixed).splitlines() == [
        "Recurrent(averaging, (GRUCell(3, 4), Affine), outputs='last')",
        "  l1_reverse: Affine()",
        "    linear: Linear(weight (3, 3), bias (3,))",
    ]
