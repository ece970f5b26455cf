"""Initial values: what each function promises of every block, on cells and on whole layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cell_table import KINDS, as_state, parts_of, weights_of

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import nn

INPUTS, HIDDEN = 3, 8

GATED = [name for name, kind in KINDS.items() if kind.cell_type.forget_gate is not None]
UNGATED = [name for name in KINDS if name not in GATED]
MATRICES = [name for name in KINDS if not name.startswith(("indrnn", "min", "lru"))]
IN_FRAMEWORKS = [name for name in KINDS if name.startswith(("tanh", "relu", "lstm", "gru"))]

#: Every function, with arguments that suit it.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "pytorch_": lambda module: rnn.init.pytorch_(module, rng=0),
    "keras_": lambda module: rnn.init.keras_(module, rng=0),
    "orthogonal_": lambda module: rnn.init.orthogonal_(module, rng=0),
    "identity_": rnn.init.identity_,
    "forget_bias_": rnn.init.forget_bias_,
    "chrono_": lambda module: rnn.init.chrono_(module, 100, rng=0),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def make(kind: str, hidden: int = HIDDEN, dtype: str = "float64", **settings: Any) -> Any:
    settings = {**KINDS[kind].settings, **settings}
    return KINDS[kind].cell_type(INPUTS, hidden, dtype=dtype, rng=0, **settings)


def remembering(cell: Any) -> np.ndarray:
    """The total bias of the gate that keeps the memory, as it acts on keeping."""
    gate, sign = cell.forget_gate
    return sign * total_bias(cell, gate)


def total_bias(cell: Any, gate: str) -> np.ndarray:
    biases = [b for b in (cell.bias_ih, cell.bias_hh) if b is not None]
    total = sum(bias.numpy() for bias in biases)
    return np.split(total, len(cell.gates))[cell.gates.index(gate)]


# --------------------------------------------------------------------------------------
# What they have in common
# --------------------------------------------------------------------------------------


@every_function
def test_a_function_returns_its_module_and_keeps_its_parameters(name: str) -> None:
    cell = make("relu" if name == "identity_" else "lstm", dtype="float32")
    before, values = list(cell.parameters()), weights_of(cell)
    assert FUNCTIONS[name](cell) is cell
    assert all(a is b for a, b in zip(before, cell.parameters(), strict=True))
    assert all(value.dtype == "float32" for value in weights_of(cell).values())
    changed = [n for n, value in weights_of(cell).items() if (value != values[n]).any()]
    # pytorch_ draws what the constructor draws, here from the same seed.
    assert bool(changed) == (name != "pytorch_")


@every_function
def test_a_function_reaches_every_cell_of_a_layer_and_of_a_model(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.encoder = (rnn.RNN if name == "identity_" else rnn.LSTM)(3, 4, 2, rng=0)
            self.decoder = [rnn.RNNCell(4, 4, rng=0) if name == "identity_" else rnn.LSTMCell(4, 4)]
            self.readout = nn.Linear(4, 2, rng=0)

    model = Model()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    assert FUNCTIONS[name](model) is model
    after = {name: value.numpy() for name, value in model.state_dict().items()}
    touched = "bias_" if name in ("forget_bias_", "chrono_") else "weight_hh"
    for key, value in before.items():
        if "readout" in key:
            np.testing.assert_array_equal(after[key], value)
        elif touched in key and (name != "pytorch_" or "decoder" in key):
            assert (after[key] != value).any(), key


@every_function
def test_a_module_without_cells_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no cell in this Linear"):
        FUNCTIONS[name](nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "kinds", "message"),
    [
        ("pytorch_", set(KINDS) - set(IN_FRAMEWORKS), "has no default in PyTorch"),
        ("keras_", set(KINDS) - set(IN_FRAMEWORKS), "has no default in Keras"),
        ("orthogonal_", set(KINDS) - set(MATRICES), "has no recurrent matrix"),
        ("identity_", set(KINDS) - {"tanh", "relu"}, "has no single square weight_hh"),
        ("forget_bias_", UNGATED, "has no forget gate with a bias"),
        ("chrono_", UNGATED, "has no forget gate with a bias"),
    ],
)
def test_one_cell_that_does_not_suit_leaves_all_as_they_were(
    name: str, kinds: Any, message: str
) -> None:
    suits = make("relu" if name == "identity_" else "lstm")
    before = weights_of(suits)
    assert kinds
    for kind in sorted(kinds):
        cells = nn.ModuleList([suits, make(kind)])
        with pytest.raises(ValueError, match=f"{type(cells[1]).__name__} {message}: "):
            FUNCTIONS[name](cells)
    for key, value in weights_of(suits).items():
        np.testing.assert_array_equal(value, before[key])


# --------------------------------------------------------------------------------------
# Recurrent matrices
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MATRICES)
def test_every_gate_has_an_orthogonal_matrix_of_its_own(kind: str) -> None:
    cell = rnn.init.orthogonal_(make(kind), gain=1.5, rng=0)
    blocks = np.split(cell.weight_hh.numpy(), len(cell.gates))
    for block in blocks:
        columns = block.T @ block
        np.testing.assert_allclose(columns, 1.5**2 * np.eye(len(columns)), rtol=0, atol=1e-12)
    for k, block in enumerate(blocks[1:]):
        assert abs(block - blocks[k]).max() > 0.1


def test_the_same_seed_gives_the_same_matrix() -> None:
    first, again = (rnn.init.orthogonal_(make("gru"), rng=3).weight_hh.numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != rnn.init.orthogonal_(make("gru"), rng=4).weight_hh.numpy()).any()


def test_an_irnn_adds_up_its_positive_inputs() -> None:
    cell = rnn.init.identity_(make("relu"))
    xs = mg.tensor(np.random.default_rng(0).normal(size=(20, 2, INPUTS)))
    with cell.using(weight_ih=mg.abs(cell.weight_ih)):
        _, h = rnn.unroll(cell, mg.abs(xs))
        expected = (mg.abs(xs) @ cell.weight_ih.T).numpy().sum(axis=0)
    np.testing.assert_allclose(h.numpy(), expected, rtol=1e-13)
    scaled = rnn.init.identity_(make("relu"), scale=0.01).weight_hh
    np.testing.assert_array_equal(scaled.numpy(), 0.01 * np.eye(HIDDEN))


# --------------------------------------------------------------------------------------
# Forget gates
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GATED)
@pytest.mark.parametrize("value", [1.0, -0.5])
def test_the_forget_bias_is_the_sum_of_both(kind: str, value: float) -> None:
    cell, before = make(kind), make(kind)
    rnn.init.forget_bias_(cell, value)
    np.testing.assert_array_equal(remembering(cell), np.full(HIDDEN, value))
    for gate in set(cell.gates) - {cell.forget_gate[0]}:
        np.testing.assert_array_equal(total_bias(cell, gate), total_bias(before, gate))


@pytest.mark.parametrize(
    "kind", ["lstm", "lstm coupled", "gru", "gru reset before", "mgu", "mingru"]
)
def test_a_large_forget_bias_keeps_all_of_the_memory(kind: str) -> None:
    """Whatever the gate is called: what the cell remembers comes out as it went in."""
    cell = rnn.init.forget_bias_(make(kind), 1000.0)
    x, empty = mg.tensor(np.ones((2, INPUTS))), parts_of(cell.initial_state(2))
    memory = mg.tensor(np.random.default_rng(0).normal(size=(2, HIDDEN)))
    new = parts_of(cell(x, as_state((*empty[:-1], memory)))[1])[-1]
    written = parts_of(cell(x, as_state(empty))[1])[-1]
    np.testing.assert_allclose(new.numpy(), (memory + written).numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", GATED)
def test_chrono_biases_are_logarithms_of_uniform_times(kind: str) -> None:
    cells = rnn.init.chrono_(nn.ModuleList([make(kind, hidden=40) for _ in range(100)]), 101, rng=0)
    times = np.exp([remembering(cell) for cell in cells])
    assert times.min() >= 1.0
    assert times.max() <= 100.0
    # 4,000 numbers from U(1, 100): a quartile deviates by about 0.7.
    quartiles = np.quantile(times, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [25.75, 50.5, 75.25], atol=3.0)
    if {"f", "i"} <= set(cells[0].gates):
        for cell in cells:
            np.testing.assert_array_equal(total_bias(cell, "i"), -total_bias(cell, "f"))


@pytest.mark.parametrize("t_max", [2, 1.0, -3, float("nan")])
def test_a_chrono_time_without_range_is_refused(t_max: float) -> None:
    with pytest.raises(ValueError, match="t_max is a number of steps above 2, not "):
        rnn.init.chrono_(make("lstm"), t_max)


@pytest.mark.parametrize("name", ["forget_bias_", "chrono_"])
def test_a_forget_gate_without_bias_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="LSTMCell has no forget gate with a bias"):
        FUNCTIONS[name](rnn.LSTM(3, 4, bias=False))


# --------------------------------------------------------------------------------------
# Defaults by name
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IN_FRAMEWORKS)
def test_pytorchs_default_is_the_constructors(kind: str) -> None:
    cell, expected = make(kind), weights_of(make(kind))
    for parameter in cell.parameters():
        parameter.rebind(parameter.detach() + 1.0)
    rnn.init.pytorch_(cell, rng=0)
    for name, value in weights_of(cell).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("kind", IN_FRAMEWORKS)
def test_kerass_default(kind: str) -> None:
    cell = rnn.init.keras_(make(kind, hidden=50), rng=0)
    bound = np.sqrt(6.0 / (INPUTS + len(cell.gates) * 50))
    assert 0.95 * bound < abs(cell.weight_ih.numpy()).max() <= bound
    recurrent = cell.weight_hh.numpy()
    product = recurrent.T @ recurrent
    np.testing.assert_allclose(product, np.eye(len(product)), rtol=0, atol=1e-12)
    if kind.startswith("lstm"):
        np.testing.assert_array_equal(remembering(cell), np.ones(50))
    for gate in cell.gates:
        if not kind.startswith("lstm") or gate != cell.forget_gate[0]:
            assert not total_bias(cell, gate).any(), gate


def test_kerass_default_without_bias() -> None:
    cell = rnn.init.keras_(rnn.LSTMCell(3, 4, bias=False), rng=0)
    assert cell.bias_ih is None
    assert cell.bias_hh is None
