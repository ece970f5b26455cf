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

INPUTS, HIDDEN, BATCH, TIME = 3, 4, 2, 5

KINDS: dict[str, tuple[type[rnn.Recurrent], dict[str, Any]]] = {
    "tanh": (rnn.RNN, {}),
    "relu": (rnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (rnn.LSTM, {}),
    "gru": (rnn.GRU, {}),
}

every_kind = pytest.mark.parametrize("kind", KINDS)
up_to_three_layers = pytest.mark.parametrize("layers", [1, 2, 3])
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def make_layer(kind: str, layers: int = 2, **settings: Any) -> rnn.Recurrent:
    layer_type, own = KINDS[kind]
    return layer_type(
        INPUTS, HIDDEN, **{"num_layers": layers, "dtype": "float64", "rng": 0, **own, **settings}
    )


def torch_layer(torch: Any, kind: str, layers: int, **settings: Any) -> Any:
    layer_type, own = KINDS[kind]
    made = getattr(torch.nn, layer_type.__name__)
    return made(INPUTS, HIDDEN, num_layers=layers, dtype=torch.float64, **own, **settings)


def parts_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_state(parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]


def random_state(kind: str, layers: int, rng: np.random.Generator) -> list[np.ndarray]:
    number = 2 if kind == "lstm" else 1
    return [rng.normal(size=(layers, BATCH, HIDDEN)) for _ in range(number)]


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
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
def test_values_states_and_all_gradients_equal_torchs(
    torch: Any,
    rng: np.random.Generator,
    kind: str,
    layers: int,
    bias: bool,
    batch_first: bool,
    given: bool,
) -> None:
    layer = make_layer(kind, layers, bias=bias, batch_first=batch_first)
    twin = torch_layer(torch, kind, layers, bias=bias, batch_first=batch_first)
    twin.load_state_dict({n: torch.tensor(p.numpy()) for n, p in layer.state_dict().items()})
    shape = (BATCH, TIME) if batch_first else (TIME, BATCH)
    arrays = [rng.normal(size=(*shape, INPUTS)), *random_state(kind, layers, rng)]
    arrays = arrays if given else arrays[:1]
    weights = [rng.normal(size=(*shape, HIDDEN)), *random_state(kind, layers, rng)]

    leaves = [mg.tensor(a, requires_grad=True) for a in arrays]
    with mg.Tape() as tape:
        ys, state = layer(leaves[0], as_state(leaves[1:]) if given else None)
        outputs = [ys, *parts_of(state)]
        loss = mg.stack([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).sum()
    tape.backward(loss)

    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    their_ys, their_state = twin(theirs[0], as_state(theirs[1:]) if given else None)
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


@every_kind
@up_to_three_layers
@with_and_without_bias
def test_weights_move_to_and_from_torch_by_name(
    torch: Any, rng: np.random.Generator, kind: str, layers: int, bias: bool
) -> None:
    layer = make_layer(kind, layers, bias=bias)
    twin = torch_layer(torch, kind, layers, bias=bias)
    assert [(name, value.shape) for name, value in layer.state_dict().items()] == [
        (name, tuple(value.shape)) for name, value in twin.state_dict().items()
    ]
    xs = sequence(rng)
    layer.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    assert_close(layer(xs)[0], twin(torch.tensor(xs.numpy()))[0].detach(), 1e-10)

    other = torch_layer(torch, kind, layers, bias=bias)
    other.load_state_dict(
        {name: torch.from_numpy(value.numpy()) for name, value in layer.state_dict().items()}
    )
    for name, value in twin.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


# --------------------------------------------------------------------------------------
# Against its own cells
# --------------------------------------------------------------------------------------


def states_by_layer(state: Any) -> list[Any]:
    """The state of every layer, from the state of all."""
    if isinstance(state, tuple):
        return list(zip(*state, strict=True))
    return list(state)


@every_kind
@up_to_three_layers
def test_a_layer_equals_its_cells_called_step_by_step(
    rng: np.random.Generator, kind: str, layers: int
) -> None:
    layer = make_layer(kind, layers)
    xs = sequence(rng)
    state = as_state([mg.tensor(part) for part in random_state(kind, layers, rng)])
    parameters = list(layer.parameters())

    def run_cells() -> tuple[Tensor, list[Any]]:
        states = states_by_layer(state)
        ys = []
        for y in xs:
            for k, cell in enumerate(layer.cells):
                y, states[k] = cell(y, states[k])
            ys.append(y)
        return mg.stack(ys), states

    with mg.Tape() as tape:
        ys, last = layer(xs, state)
        expected_ys, expected_last = run_cells()
        weight = rng.normal(size=ys.shape)
        loss, expected_loss = (ys * weight).sum(), (expected_ys * weight).sum()

    assert_close(ys, expected_ys, 1e-13)
    for own, expected in zip(states_by_layer(last), expected_last, strict=True):
        for part, expected_part in zip(parts_of(own), parts_of(expected), strict=True):
            assert_close(part, expected_part, 1e-13)
    gradients = tape.gradient(loss, parameters, retain=True)
    expected_gradients = tape.gradient(expected_loss, parameters)
    for own, expected in zip(gradients, expected_gradients, strict=True):
        assert_close(own, expected, 1e-12)


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
    for part in parts_of(zeros):
        assert part.shape == (3, BATCH, HIDDEN)
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
    dropout = copy.deepcopy(layer.dropout)
    xs = sequence(rng)
    ys, (h, c) = layer(xs)
    expected = xs
    for k, cell in enumerate(layer.cells):
        expected = dropout(expected) if k else expected
        expected, (expected_h, expected_c) = rnn.unroll(cell, expected)
        np.testing.assert_array_equal(h.numpy()[k], expected_h.numpy())
        np.testing.assert_array_equal(c.numpy()[k], expected_c.numpy())
    np.testing.assert_array_equal(ys.numpy(), expected.numpy())
    assert (ys.numpy() != make_layer("lstm", 3, rng=5)(xs)[0].numpy()).any()


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
        assert [module.training for module in layer.modules()] == [mode] * 4


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
    layer = make_layer(kind, dropout=0.5)
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
        ({"num_layers": 1, "dropout": 0.5}, "there is only one"),
        ({"num_layers": 2, "dropout": 1.0}, "1.0"),
        ({"num_layers": 2, "dropout": -0.1}, "-0.1"),
        ({"nonlinearity": "sigmoid"}, "'tanh' or 'relu', not 'sigmoid'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.RNN(INPUTS, HIDDEN, **settings)


@pytest.mark.parametrize("shape", [(INPUTS,), (TIME, INPUTS), (1, TIME, BATCH, INPUTS), ()])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sequence_without_three_axes_is_refused(
    shape: tuple[int, ...], batch_first: bool
) -> None:
    layout = "(batch, time, features)" if batch_first else "(time, batch, features)"
    with pytest.raises(ValueError, match="GRU expects xs") as error:
        make_layer("gru", batch_first=batch_first)(zeros(*shape))
    assert layout in str(error.value)
    assert str(shape) in str(error.value)


@every_kind
def test_a_sequence_of_other_features_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"3\), not \(5, 2, 7\)"):
        make_layer(kind)(zeros(TIME, BATCH, 7))


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
