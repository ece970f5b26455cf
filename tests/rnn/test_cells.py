"""Cells against torch.nn, against finite differences, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from finite_differences import check_gradients

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn

INPUTS, HIDDEN, BATCH = 3, 4, 2

KINDS: dict[str, tuple[type[rnn.Cell], dict[str, Any]]] = {
    "tanh": (rnn.RNNCell, {}),
    "relu": (rnn.RNNCell, {"nonlinearity": "relu"}),
    "lstm": (rnn.LSTMCell, {}),
    "gru": (rnn.GRUCell, {}),
}

every_kind = pytest.mark.parametrize("kind", KINDS)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def make_cell(kind: str, *, bias: bool = True, dtype: str = "float64", rng: Any = 0) -> rnn.Cell:
    cell_type, settings = KINDS[kind]
    return cell_type(INPUTS, HIDDEN, bias, dtype=dtype, rng=rng, **settings)


def parts_of(state: Any) -> tuple[Any, ...]:
    """The tensors of a state: two for an LSTM, else one."""
    return state if isinstance(state, tuple) else (state,)


def random_state(kind: str, rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=(BATCH, HIDDEN)) for _ in range(2 if kind == "lstm" else 1)]


def as_state(parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]


# --------------------------------------------------------------------------------------
# Values and gradients
# --------------------------------------------------------------------------------------


@every_kind
@with_and_without_bias
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
def test_values_and_all_gradients_equal_torchs(
    torch: Any, rng: np.random.Generator, kind: str, bias: bool, given: bool
) -> None:
    cell = make_cell(kind, bias=bias)
    cell_type, settings = KINDS[kind]
    twin = getattr(torch.nn, cell_type.__name__)(
        INPUTS, HIDDEN, bias=bias, dtype=torch.float64, **settings
    )
    twin.load_state_dict({n: torch.tensor(p.numpy()) for n, p in cell.state_dict().items()})
    arrays = [rng.normal(size=(BATCH, INPUTS)), *(random_state(kind, rng) if given else [])]
    weights = random_state(kind, rng)

    leaves = [mg.tensor(a, requires_grad=True) for a in arrays]
    with mg.Tape() as tape:
        y, state = cell(leaves[0], as_state(leaves[1:]) if given else None)
        outputs = parts_of(state)
        loss = mg.stack([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).sum()
    tape.backward(loss)

    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    their_state = twin(theirs[0], as_state(theirs[1:]) if given else None)
    sum(
        (o * torch.tensor(w)).sum() for o, w in zip(parts_of(their_state), weights, strict=True)
    ).backward()

    assert y is outputs[0]
    for own, their in zip(outputs, parts_of(their_state), strict=True):
        np.testing.assert_allclose(own.numpy(), their.detach().numpy(), rtol=0, atol=1e-10)
    their_parameters = dict(twin.named_parameters())
    assert their_parameters.keys() == dict(cell.named_parameters()).keys()
    pairs = [
        *zip(leaves, theirs, strict=True),
        *((p, their_parameters[name]) for name, p in cell.named_parameters()),
    ]
    for own, their in pairs:
        assert own.grad is not None
        np.testing.assert_allclose(own.grad.numpy(), their.grad.numpy(), rtol=0, atol=1e-10)


@every_kind
@with_and_without_bias
def test_unrolled_gradients_to_second_order(
    rng: np.random.Generator, kind: str, bias: bool
) -> None:
    cell = make_cell(kind, bias=bias)
    names = list(cell.state_dict())
    number = len(random_state(kind, rng))

    def outputs(xs: Tensor, *rest: Tensor) -> Tensor:
        for name, weight in zip(names, rest[number:], strict=True):
            setattr(cell, name, weight)
        ys, state = rnn.unroll(cell, xs, as_state(list(rest[:number])))
        return mg.concatenate([ys, mg.stack(parts_of(state))])

    xs = rng.normal(size=(3, BATCH, INPUTS))
    values = [value.numpy() for value in cell.state_dict().values()]
    check_gradients(outputs, [xs, *random_state(kind, rng), *values])


@every_kind
def test_unroll_equals_one_call_per_step(rng: np.random.Generator, kind: str) -> None:
    cell = make_cell(kind)
    xs = mg.tensor(rng.normal(size=(5, BATCH, INPUTS)))
    state = as_state([mg.tensor(part) for part in random_state(kind, rng)])
    ys, last = rnn.unroll(cell, xs, state)
    for t in range(5):
        y, state = cell(xs[t], state)
        np.testing.assert_allclose(ys.numpy()[t], y.numpy(), rtol=0, atol=1e-14)
    for own, expected in zip(parts_of(last), parts_of(state), strict=True):
        np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=0, atol=1e-14)


@every_kind
def test_the_default_state_is_zeros(rng: np.random.Generator, kind: str) -> None:
    cell = make_cell(kind, dtype="float32")
    x = mg.tensor(rng.normal(size=(BATCH, INPUTS)), dtype="float32")
    zeros = cell.initial_state(BATCH)
    for part in parts_of(zeros):
        assert part.shape == (BATCH, HIDDEN)
        assert part.dtype == "float32"
        assert not part.numpy().any()
    np.testing.assert_array_equal(cell(x)[0].numpy(), cell(x, zeros)[0].numpy())


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept_by_values_and_gradients(kind: str, dtype: str) -> None:
    cell = make_cell(kind, dtype=dtype)
    with mg.Tape() as tape:
        y, state = cell(mg.tensor(np.ones((BATCH, INPUTS)), dtype=dtype))
        loss = y.sum()
    tape.backward(loss)
    gradients = [p.grad for p in cell.parameters() if p.grad is not None]
    assert len(gradients) == 4
    assert {t.dtype for t in (y, *parts_of(state), *gradients)} == {np.dtype(dtype)}


# --------------------------------------------------------------------------------------
# Making one
# --------------------------------------------------------------------------------------


@every_kind
def test_initial_values_are_uniform_and_reproducible(kind: str) -> None:
    cell_type, settings = KINDS[kind]
    cell = cell_type(50, 100, rng=7, **settings)
    again = cell_type(50, 100, rng=7, **settings)
    for (name, parameter), twin in zip(cell.named_parameters(), again.parameters(), strict=True):
        values = parameter.numpy()
        np.testing.assert_array_equal(values, twin.numpy(), err_msg=name)
        assert abs(values).max() <= 0.1
        assert abs(values).max() > 0.09
        assert parameter.dtype == "float32"
    assert (make_cell(kind, rng=1).weight_hh.numpy() != make_cell(kind, rng=2).weight_hh).all()


@every_kind
def test_without_bias_there_are_only_weights(kind: str) -> None:
    assert list(make_cell(kind, bias=False).state_dict()) == ["weight_ih", "weight_hh"]


@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (-1, 4)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least 1, not {sizes[0]} and {sizes[1]}"):
        rnn.GRUCell(*sizes)


def test_an_unknown_nonlinearity_is_refused() -> None:
    unknown: Any = "sigmoid"
    with pytest.raises(ValueError, match="'tanh' or 'relu', not 'sigmoid'"):
        rnn.RNNCell(3, 4, nonlinearity=unknown)


# --------------------------------------------------------------------------------------
# Shapes that do not suit
# --------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("shape", [(3,), (BATCH, 2), (5, BATCH, INPUTS), ()])
def test_an_x_of_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expects x \(batch, 3\), not \(") as error:
        make_cell(kind)(mg.tensor(np.zeros(shape)))
    assert str(shape) in str(error.value)


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape))


@pytest.mark.parametrize("kind", ["tanh", "gru"])
@pytest.mark.parametrize(
    "state",
    [
        zeros(HIDDEN),
        zeros(1, HIDDEN),  # NumPy would broadcast it silently
        zeros(BATCH, HIDDEN + 1),
        zeros(1, BATCH, HIDDEN),
        (zeros(BATCH, HIDDEN),),
        (zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN)),
        [zeros(BATCH, HIDDEN)],
        0.0,
    ],
)
def test_a_state_of_another_shape_is_refused(kind: str, state: Any) -> None:
    with pytest.raises(ValueError, match=r"Cell expects a state of shape \(2, 4\), not "):
        make_cell(kind)(zeros(BATCH, INPUTS), state)


@pytest.mark.parametrize(
    "state",
    [
        zeros(BATCH, HIDDEN),
        zeros(2, BATCH, HIDDEN),
        (zeros(BATCH, HIDDEN),),
        (zeros(BATCH, HIDDEN), zeros(1, HIDDEN)),
        (zeros(BATCH, HIDDEN), None),
        (zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN)),
        ((zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN)), zeros(BATCH, HIDDEN)),
        [zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN)],
        (),
    ],
)
def test_an_lstm_state_of_another_shape_or_nesting_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match=r"LSTMCell expects a state of shape \(\(2, 4\), \(2, 4\)"):
        make_cell("lstm")(zeros(BATCH, INPUTS), state)


# --------------------------------------------------------------------------------------
# unroll, with anything that is a cell
# --------------------------------------------------------------------------------------


class Doubled(nn.Module):
    """A module that is a cell, around another: its y is twice that of the inner one."""

    def __init__(self, inner: rnn.Cell) -> None:
        self.inner = inner

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.inner(x, state)
        return 2.0 * y, state


class DoubledByInheritance(rnn.GRUCell):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return 2.0 * y, state


def plain_function(cell: rnn.Cell) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = cell(x, state)
        return 2.0 * y, state

    return step


def subclass(cell: rnn.Cell) -> DoubledByInheritance:
    doubled = DoubledByInheritance(INPUTS, HIDDEN, dtype="float64")
    doubled.load_state_dict(cell.state_dict())
    return doubled


@pytest.mark.parametrize("wrap", [plain_function, Doubled, subclass])
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
def test_any_function_or_module_is_a_cell(
    rng: np.random.Generator, wrap: Callable[[rnn.Cell], Any], given: bool
) -> None:
    cell = make_cell("gru")
    xs = mg.tensor(rng.normal(size=(5, BATCH, INPUTS)))
    state = mg.tensor(rng.normal(size=(BATCH, HIDDEN))) if given else None
    ys, last = rnn.unroll(cell, xs, state)
    doubled, own_last = rnn.unroll(wrap(cell), xs, state)
    np.testing.assert_allclose(doubled.numpy(), 2.0 * ys.numpy(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(own_last.numpy(), last.numpy(), rtol=0, atol=1e-14)


def test_a_users_cell_is_differentiated_through_time() -> None:
    w = mg.tensor(0.5, dtype="float64", requires_grad=True)
    with mg.Tape() as tape:
        ys, last = rnn.unroll(lambda x, h: (w * h + x, w * h + x), mg.tensor(np.ones(4)), w)
    # h_4 = w^5 + w^3 + w^2 + w + 1, and the derivative of that.
    assert last.item() == 0.5**5 + 0.5**3 + 0.5**2 + 0.5 + 1
    assert ys.shape == (4,)
    assert tape.gradient(last, w).item() == 5 * 0.5**4 + 3 * 0.5**2 + 2 * 0.5 + 1


@pytest.mark.parametrize(
    "cell", [make_cell("lstm"), lambda x, state: (x, state)], ids=["cell", "f"]
)
@pytest.mark.parametrize("shape", [(0, BATCH, INPUTS), ()])
def test_unrolling_nothing_is_refused(cell: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one step"):
        rnn.unroll(cell, zeros(*shape))


@every_kind
@pytest.mark.parametrize("shape", [(5, BATCH, 2), (5, INPUTS), (5, 1, BATCH, INPUTS)])
def test_unroll_refuses_a_sequence_of_another_shape(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Cell expects xs \(time, batch, 3\), not \("):
        rnn.unroll(make_cell(kind), zeros(*shape))


def test_unroll_refuses_a_state_of_another_batch() -> None:
    with pytest.raises(ValueError, match=r"expects a state of shape \(2, 4\), not \(3, 4\)"):
        rnn.unroll(make_cell("gru"), zeros(5, BATCH, INPUTS), zeros(3, HIDDEN))
