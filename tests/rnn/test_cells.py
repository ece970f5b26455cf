"""Cells against NumPy, torch.nn, ONNX and finite differences; their modes, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cell_table import (
    BATCH,
    HIDDEN,
    INPUTS,
    KINDS,
    as_state,
    parts_of,
    random_state,
    weights_of,
)

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad.testing import check_gradients

every_kind = pytest.mark.parametrize("kind", KINDS)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
every_kind_with_and_without_bias = pytest.mark.parametrize(
    ("kind", "bias"),
    [(kind, bias) for kind in KINDS for bias in (True, False) if bias or kind != "lru"],
)
recurrent_kinds = pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if kind.cell_type.recurrent_product]
)
carried_kinds = pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if not kind.cell_type.recurrent_product]
)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def make(kind: str, bias: bool = True, **settings: Any) -> Any:
    return KINDS[kind].make(bias=bias, **settings)


def random_x(rng: np.random.Generator, *steps: int) -> np.ndarray:
    return rng.normal(size=(*steps, BATCH, INPUTS))


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape))


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------


@every_kind_with_and_without_bias
def test_a_step_is_that_of_the_paper(rng: np.random.Generator, kind: str, bias: bool) -> None:
    cell = make(kind, bias)
    x, state = random_x(rng), random_state(cell, rng)
    y, new = cell(mg.tensor(x), as_state([mg.tensor(part) for part in state]))
    expected = KINDS[kind].step(weights_of(cell), x, *state)
    for own, other in zip((y, *parts_of(new)), expected, strict=True):
        np.testing.assert_allclose(own.numpy(), other, rtol=0, atol=1e-13)
    assert y.shape == (BATCH, cell.output_size)


@every_kind
def test_x_may_come_without_a_batch(rng: np.random.Generator, kind: str) -> None:
    cell = make(kind)
    x, state = mg.tensor(random_x(rng)), [mg.tensor(part) for part in random_state(cell, rng)]
    for given in (state, None):
        y, new = cell(x, None if given is None else as_state(given))
        y_0, new_0 = cell(x[0], None if given is None else as_state([part[0] for part in given]))
        for batched, row in zip((y, *parts_of(new)), (y_0, *parts_of(new_0)), strict=True):
            assert row.shape == batched.shape[1:]
            np.testing.assert_allclose(row.numpy(), batched.numpy()[0], rtol=0, atol=1e-14)


@every_kind
def test_unroll_equals_one_call_per_step(rng: np.random.Generator, kind: str) -> None:
    cell = make(kind)
    xs = mg.tensor(random_x(rng, 5))
    state = as_state([mg.tensor(part) for part in random_state(cell, rng)])
    ys, last = rnn.unroll(cell, xs, state)
    for t in range(5):
        y, state = cell(xs[t], state)
        np.testing.assert_allclose(ys.numpy()[t], y.numpy(), rtol=0, atol=1e-14)
    for own, expected in zip(parts_of(last), parts_of(state), strict=True):
        np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=0, atol=1e-14)


@every_kind
def test_the_default_state_is_zeros(rng: np.random.Generator, kind: str) -> None:
    cell = make(kind, dtype="float32")
    x = mg.tensor(random_x(rng), dtype="float32")
    state = cell.initial_state(BATCH)
    for part in parts_of(state):
        assert part.dtype == "float32"
        assert not part.numpy().any()
    np.testing.assert_array_equal(cell(x)[0].numpy(), cell(x, state)[0].numpy())


def test_a_coupled_lstm_is_one_whose_forget_gate_mirrors_the_input_gate(
    rng: np.random.Generator,
) -> None:
    """1 - sigmoid(a) = sigmoid(-a)."""
    coupled = make("lstm coupled")
    plain = rnn.LSTMCell(INPUTS, HIDDEN, dtype="float64")
    for name, value in weights_of(coupled).items():
        i, g, o = np.split(value, 3)
        getattr(plain, name).rebind(mg.tensor(np.concatenate([i, -i, g, o])))
    xs = mg.tensor(random_x(rng, 5))
    ys, expected = rnn.unroll(coupled, xs)[0], rnn.unroll(plain, xs)[0]
    np.testing.assert_allclose(ys.numpy(), expected.numpy(), rtol=0, atol=1e-14)


def test_before_and_after_the_product_is_the_same_for_one_unit_without_bias(
    rng: np.random.Generator,
) -> None:
    xs = mg.tensor(random_x(rng, 5))
    after, _ = rnn.unroll(rnn.GRUCell(INPUTS, 1, False, dtype="float64", rng=0), xs)
    before, _ = rnn.unroll(
        rnn.GRUCell(INPUTS, 1, False, dtype="float64", rng=0, reset="before"), xs
    )
    np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=0, atol=1e-14)


def test_an_lru_is_a_convolution_with_the_powers_of_its_eigenvalues(
    rng: np.random.Generator,
) -> None:
    """y_t = Re(C sum_k lambda^k exp(gamma_log) B x_{t-k}) + D x_t,  in complex numbers."""
    cell = rnn.LRUCell(INPUTS, HIDDEN, dtype="float64", rng=0)
    xs = random_x(rng, 6)
    w = weights_of(cell)
    re, im = (part.numpy() for part in cell.eigenvalues())
    powers = (re + 1j * im) ** np.arange(6)[:, None]
    inputs = np.exp(w["gamma_log"]) * (xs @ (w["B_re"] + 1j * w["B_im"]).T)
    states = [sum(powers[t - k] * inputs[k] for k in range(t + 1)) for t in range(6)]
    expected = (np.array(states) @ (w["C_re"] + 1j * w["C_im"]).T).real + xs @ w["D"].T
    ys, (last_re, last_im) = rnn.unroll(cell, mg.tensor(xs))
    np.testing.assert_allclose(ys.numpy(), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(last_re.numpy() + 1j * last_im.numpy(), states[-1], atol=1e-13)


def test_minimal_lstm_gates_that_both_round_to_zero_still_share_one() -> None:
    cell = rnn.MinLSTMCell(1, 1, dtype="float64")
    weights = {"weight_ih": np.zeros((3, 1)), "bias_ih": np.array([-2000.0, -2000.0, 3.0])}
    cell.load_state_dict(weights)
    y, _ = cell(zeros(1, 1), mg.tensor([[1.0]], dtype="float64"))
    assert y.item() == 2.0  # half of 1, and half of 3


# --------------------------------------------------------------------------------------
# Against torch.nn, and ONNX
# --------------------------------------------------------------------------------------


TORCH = {"tanh": "RNNCell", "relu": "RNNCell", "lstm": "LSTMCell", "gru": "GRUCell"}


@pytest.mark.parametrize("kind", TORCH)
@with_and_without_bias
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
def test_values_and_all_gradients_equal_torchs(
    torch: Any, rng: np.random.Generator, kind: str, bias: bool, given: bool
) -> None:
    cell = make(kind, bias)
    twin = getattr(torch.nn, TORCH[kind])(
        INPUTS, HIDDEN, bias=bias, dtype=torch.float64, **KINDS[kind].settings
    )
    twin.load_state_dict({n: torch.tensor(p) for n, p in weights_of(cell).items()})
    arrays = [random_x(rng), *(random_state(cell, rng) if given else [])]

    def theirs(x: Any, *state: Any) -> Any:
        return twin(x, as_state(state) if given else None)

    compare(torch, rng, cell, arrays, theirs, dict(twin.named_parameters()))


@with_and_without_bias
def test_the_projected_lstm_equals_torchs(torch: Any, rng: np.random.Generator, bias: bool) -> None:
    cell = make("lstm projected", bias)
    twin = torch.nn.LSTM(INPUTS, HIDDEN, bias=bias, proj_size=2, dtype=torch.float64)
    twin.load_state_dict({f"{n}_l0": torch.tensor(p) for n, p in weights_of(cell).items()})
    parameters = {name.removesuffix("_l0"): p for name, p in twin.named_parameters()}

    def theirs(x: Any, *state: Any) -> Any:
        _, last = twin(x[None], tuple(part[None] for part in state))
        return tuple(part[0] for part in last)

    arrays = [random_x(rng), *random_state(cell, rng)]
    compare(torch, rng, cell, arrays, theirs, parameters)


def compare(
    torch: Any,
    rng: np.random.Generator,
    cell: Any,
    arrays: list[np.ndarray],
    theirs: Callable[..., Any],
    their_parameters: dict[str, Any],
) -> None:
    """The new state, and the gradients of x, the state and all weights, to 1e-10."""
    weights = random_state(cell, rng)
    leaves = [mg.tensor(a, requires_grad=True) for a in arrays]
    with mg.Tape() as tape:
        y, state = cell(leaves[0], as_state(leaves[1:]) if leaves[1:] else None)
        outputs = parts_of(state)
        weighted = [(o * mg.tensor(w)).sum() for o, w in zip(outputs, weights, strict=True)]
        loss = mg.stack(weighted).sum()
    tape.backward(loss)

    their_leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    their_outputs = parts_of(theirs(*their_leaves))
    sum((o * torch.tensor(w)).sum() for o, w in zip(their_outputs, weights, strict=True)).backward()

    assert y is outputs[0]
    for own, their in zip(outputs, their_outputs, strict=True):
        np.testing.assert_allclose(own.numpy(), their.detach().numpy(), rtol=0, atol=1e-10)
    assert their_parameters.keys() == dict(cell.named_parameters()).keys()
    pairs = [
        *zip(leaves, their_leaves, strict=True),
        *((p, their_parameters[name]) for name, p in cell.named_parameters()),
    ]
    for own, their in pairs:
        assert own.grad is not None
        np.testing.assert_allclose(own.grad.numpy(), their.grad.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["gru", "gru reset before"])
def test_both_resets_of_a_gru_equal_the_onnx_evaluators(
    rng: np.random.Generator, kind: str
) -> None:
    cell = make(kind)
    x, (h,) = random_x(rng), random_state(cell, rng)
    (expected,) = run_onnx("GRU", cell, "zrn", [x, h], linear_before_reset=int(kind == "gru"))
    y, _ = cell(mg.tensor(x), mg.tensor(h))
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-10)


def test_diagonal_peepholes_equal_the_onnx_evaluators(rng: np.random.Generator) -> None:
    cell = make("lstm peepholes diagonal")
    x, state = random_x(rng), random_state(cell, rng)
    peepholes = [getattr(cell, f"weight_c{gate}").numpy() for gate in "iof"]
    expected = run_onnx("LSTM", cell, "iofg", [x, *state], np.concatenate(peepholes)[None])
    _, new = cell(mg.tensor(x), as_state([mg.tensor(part) for part in state]))
    for own, other in zip(new, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), other, rtol=0, atol=1e-10)


def run_onnx(
    operator: str,
    cell: Any,
    order: str,
    given: list[np.ndarray],
    *peepholes: Any,
    **attributes: Any,
) -> list[np.ndarray]:
    """The new state, of one step in one direction, by the reference evaluator."""
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")

    def ordered(value: np.ndarray) -> np.ndarray:
        blocks = dict(zip(cell.gates, np.split(value, len(cell.gates)), strict=True))
        return np.concatenate([blocks[gate] for gate in order])[None]

    weights = {name: ordered(value) for name, value in weights_of(cell).items() if "_c" not in name}
    feeds = {
        "X": given[0][None],
        "W": weights["weight_ih"],
        "R": weights["weight_hh"],
        "B": np.concatenate([weights["bias_ih"], weights["bias_hh"]], axis=1),
        **dict(zip(["h", "c"], (part[None] for part in given[1:]), strict=False)),
        **dict(zip(["P"], peepholes, strict=False)),
    }
    inputs = ["X", "W", "R", "B", "", *[name for name in ("h", "c", "P") if name in feeds]]
    outputs = ["Y", "Y_h", "Y_c"][: len(given)]
    node = onnx.helper.make_node(operator, inputs, outputs, hidden_size=HIDDEN, **attributes)

    def declared(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None)

    graph = onnx.helper.make_graph(
        [node], "step", [declared(name) for name in feeds], [declared(name) for name in outputs]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)])
    results = reference.ReferenceEvaluator(model).run(None, feeds)
    return [part[0] for part in results[1:]]


# --------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------


@every_kind_with_and_without_bias
def test_unrolled_gradients_to_second_order(
    rng: np.random.Generator, kind: str, bias: bool
) -> None:
    cell = make(kind, bias)
    parameters = list(cell.parameters())
    owners = [
        (module, name)
        for p in parameters
        for module in cell.modules()
        for name, value in vars(module).items()
        if value is p
    ]
    state = random_state(cell, rng)

    def outputs(xs: Tensor, *rest: Tensor) -> Tensor:
        for (module, name), weight in zip(owners, rest[len(state) :], strict=True):
            setattr(module, name, weight)
        ys, last = rnn.unroll(cell, xs, as_state(rest[: len(state)]))
        return mg.concatenate([mg.ravel(part) for part in (ys, *parts_of(last))])

    check_gradients(outputs, random_x(rng, 3), *state, *[p.numpy() for p in parameters])


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept_by_values_and_gradients(kind: str, dtype: str) -> None:
    cell = make(kind, dtype=dtype).train()
    x = mg.tensor(np.ones((BATCH, INPUTS)), dtype=dtype, requires_grad=True)
    with mg.Tape() as tape:
        state = None
        for _ in range(3):
            y, state = cell(x, state)
        loss = sum(part.sum() for part in (y, *parts_of(state)))
    tape.backward(loss)
    gradients = [t.grad for t in (x, *cell.parameters())]
    assert all(gradient is not None for gradient in gradients)
    assert {t.dtype for t in (y, *parts_of(state), *gradients)} == {np.dtype(dtype)}


# --------------------------------------------------------------------------------------
# What acts on the recurrent edge
# --------------------------------------------------------------------------------------


@recurrent_kinds
def test_a_recurrent_mask_is_one_on_what_the_recurrent_weights_read(
    rng: np.random.Generator, kind: str
) -> None:
    """W (m h) = (W m) h:  the rows with their masks are rows with masked weights."""
    cell = make(kind)
    x, state = mg.tensor(random_x(rng)), [mg.tensor(part) for part in random_state(cell, rng)]
    mask = mg.tensor(rng.uniform(0.0, 2.0, (BATCH, cell.output_size)))
    with cell.using(recurrent_mask=mask):
        masked = cell(x, as_state(state))
    unmasked = cell(x, as_state(state))
    assert (masked[0].numpy() != unmasked[0].numpy()).any()
    for row in range(BATCH):
        with cell.using(weight_hh=cell.weight_hh * mask[row]):
            y, new = cell(x[row], as_state([part[row] for part in state]))
        for own, expected in zip(
            (masked[0], *parts_of(masked[1])), (y, *parts_of(new)), strict=True
        ):
            np.testing.assert_allclose(own.numpy()[row], expected.numpy(), rtol=0, atol=1e-14)


@recurrent_kinds
def test_a_mask_of_ones_changes_nothing(rng: np.random.Generator, kind: str) -> None:
    cell = make(kind)
    xs = mg.tensor(random_x(rng, 3))
    with cell.using(recurrent_mask=mg.tensor(np.ones((BATCH, cell.output_size)))):
        ys, _ = rnn.unroll(cell, xs)
    np.testing.assert_array_equal(ys.numpy(), rnn.unroll(cell, xs)[0].numpy())


def test_the_carried_memory_is_not_masked() -> None:
    """With all of h masked a GRU still keeps h, and an LSTM its c."""
    gru = rnn.init.forget_bias_(rnn.GRUCell(1, 2, dtype="float64", rng=0), 1000.0)
    lstm = rnn.init.forget_bias_(rnn.LSTMCell(1, 2, dtype="float64", rng=0), 1000.0)
    state, mask = mg.tensor([[3.0, -4.0]], dtype="float64"), zeros(1, 2)
    with gru.using(recurrent_mask=mask):
        assert gru(zeros(1, 1), state)[1].tolist() == [[3.0, -4.0]]
    _, (_, fresh) = lstm(zeros(1, 1))
    with lstm.using(recurrent_mask=mask):
        _, (_, c) = lstm(zeros(1, 1), (state, state))
    np.testing.assert_allclose(c.numpy(), state.numpy() + fresh.numpy(), rtol=0, atol=1e-14)


@carried_kinds
def test_a_recurrent_mask_needs_a_recurrent_product(kind: str) -> None:
    cell = make(kind)
    with (
        pytest.raises(ValueError, match=r"Cell has no recurrent product .* mask its input instead"),
        cell.using(recurrent_mask=zeros(BATCH, HIDDEN)),
    ):
        pass
    assert cell.recurrent_mask is None
    with cell.using(recurrent_mask=None):
        pass


@recurrent_kinds
def test_the_gradient_reaches_a_weight_through_what_is_used_instead(
    rng: np.random.Generator, kind: str
) -> None:
    """DropConnect: the raw weight is trained, with the gradient of what was kept."""
    cell = make(kind)
    raw = cell.weight_hh
    kept = mg.tensor(rng.integers(0, 2, raw.shape).astype("float64"))
    with mg.Tape() as tape:
        dropped = raw * kept
        with cell.using(weight_hh=dropped):
            assert cell.weight_hh is dropped
            ys, _ = rnn.unroll(cell, mg.tensor(random_x(rng, 3)))
        loss = (ys * ys).sum()
    assert cell.weight_hh is raw
    assert any(parameter is raw for parameter in cell.parameters())
    to_raw, to_dropped = tape.gradient(loss, [raw, dropped])
    assert to_dropped.numpy().any()
    np.testing.assert_array_equal(to_raw.numpy(), (to_dropped * kept).numpy())


def test_using_restores_after_an_exception_and_when_nested() -> None:
    cell = rnn.LSTMCell(2, 3, rng=0)
    weight, bias = cell.weight_hh, cell.bias_ih
    mask, other = zeros(1, 3), zeros(12, 3)
    with pytest.raises(RuntimeError, match="inside"), cell.using(weight_hh=other, bias_ih=None):
        with cell.using(recurrent_mask=mask, weight_hh=weight):
            assert cell.recurrent_mask is mask
            assert cell.weight_hh is weight
        assert cell.recurrent_mask is None
        assert cell.weight_hh is other
        assert cell.bias_ih is None
        raise RuntimeError("inside")
    assert cell.weight_hh is weight
    assert cell.bias_ih is bias


def test_using_an_unknown_name_is_refused_and_changes_nothing() -> None:
    cell = rnn.GRUCell(2, 3, rng=0)
    weight = cell.weight_hh
    with (
        pytest.raises(AttributeError, match="weight_xx"),
        cell.using(weight_hh=zeros(9, 3), weight_xx=zeros(1)),
    ):
        pass
    assert cell.weight_hh is weight
    assert not hasattr(cell, "weight_xx")


# --------------------------------------------------------------------------------------
# Zoneout
# --------------------------------------------------------------------------------------


def zoneout_pair(**settings: Any) -> tuple[rnn.LSTMCell, rnn.LSTMCell]:
    """An LSTM with zoneout, and the same without."""
    zoned = rnn.LSTMCell(INPUTS, 50, dtype="float64", rng=0, **settings)
    plain = rnn.LSTMCell(INPUTS, 50, dtype="float64")
    plain.load_state_dict(zoned.state_dict())
    return zoned, plain


def test_zoneout_keeps_old_elements_with_its_probability(rng: np.random.Generator) -> None:
    zoned, plain = zoneout_pair(zoneout_h=0.2, zoneout_c=0.6)
    x, old = mg.tensor(rng.normal(size=(200, INPUTS))), mg.tensor(rng.normal(size=(2, 200, 50)))
    y, new = zoned(x, tuple(old))
    _, expected = plain(x, tuple(old))
    assert y is new[0]
    for own, fresh, before, p in zip(new, expected, old, (0.2, 0.6), strict=True):
        kept = own.numpy() == before.numpy()
        np.testing.assert_allclose(own.numpy()[~kept], fresh.numpy()[~kept], rtol=0, atol=1e-14)
        # Of 10,000 elements; the deviation is sqrt(p (1 - p) / 10000), at most 0.005.
        assert abs(kept.mean() - p) < 0.02


def test_zoneout_draws_anew_at_every_step_and_again_with_the_same_seed() -> None:
    def states() -> np.ndarray:
        zoned, _ = zoneout_pair(zoneout_h=0.5)
        return rnn.unroll(zoned, zeros(4, 1, INPUTS), outputs="states")[1][0].numpy()

    kept = np.diff(states(), axis=0) == 0.0
    assert 0.3 < kept.mean() < 0.7
    assert (kept[0] != kept[1]).any()
    np.testing.assert_array_equal(states(), states())


def test_evaluated_zoneout_is_the_expectation_of_a_training_step(rng: np.random.Generator) -> None:
    zoned, _ = zoneout_pair(zoneout_h=0.3, zoneout_c=0.1)
    x, old = mg.tensor(rng.normal(size=(1, INPUTS))), mg.tensor(rng.normal(size=(2, 1, 50)))
    drawn = [zoned(x, tuple(old))[1] for _ in range(4000)]
    expected = zoned.eval()(x, tuple(old))[1]
    for k in range(2):
        samples = np.stack([state[k].numpy() for state in drawn])
        error = samples.std(axis=0) / np.sqrt(len(samples))
        assert (abs(samples.mean(axis=0) - expected[k].numpy()) < 5.0 * error + 1e-12).all()


def test_zoneout_of_c_does_not_reach_h_within_the_step(rng: np.random.Generator) -> None:
    """h' = o tanh(f c + i g):  it is c' before zoneout that h' is computed from."""
    zoned, plain = zoneout_pair(zoneout_c=0.9)
    x, old = mg.tensor(rng.normal(size=(2, INPUTS))), mg.tensor(rng.normal(size=(2, 2, 50)))
    np.testing.assert_array_equal(zoned(x, tuple(old))[0].numpy(), plain(x, tuple(old))[0].numpy())


# --------------------------------------------------------------------------------------
# Making one, and moving its weights
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell_type", "settings", "count"),
    [
        (rnn.RNNCell, {}, 5 * 3 + 5 * 5 + 2 * 5),
        (rnn.IndRNNCell, {}, 5 * 3 + 5 + 5),
        (rnn.LSTMCell, {}, 4 * (5 * 3 + 5 * 5 + 2 * 5)),
        (rnn.LSTMCell, {"coupled": True}, 3 * (5 * 3 + 5 * 5 + 2 * 5)),
        (rnn.LSTMCell, {"proj_size": 2}, 4 * (5 * 3 + 5 * 2 + 2 * 5) + 2 * 5),
        (rnn.LSTMCell, {"peepholes": "diagonal"}, 4 * (5 * 3 + 5 * 5 + 2 * 5) + 3 * 5),
        (rnn.LSTMCell, {"peepholes": "full"}, 4 * (5 * 3 + 5 * 5 + 2 * 5) + 3 * 25),
        (
            rnn.LSTMCell,
            {"peepholes": "diagonal", "coupled": True},
            3 * (5 * 3 + 5 * 5 + 2 * 5) + 2 * 5,
        ),
        (rnn.LSTMCell, {"layer_norm": True}, 4 * (5 * 3 + 5 * 5 + 2 * 5) + 2 * 20 + 2 * 5),
        (rnn.GRUCell, {}, 3 * (5 * 3 + 5 * 5 + 2 * 5)),
        (rnn.GRUCell, {"layer_norm": True}, 3 * (5 * 3 + 5 * 5 + 2 * 5) + 2 * 15),
        (rnn.MGUCell, {}, 2 * (5 * 3 + 5 * 5 + 5)),
        (rnn.MinGRUCell, {}, 2 * (5 * 3 + 5)),
        (rnn.MinLSTMCell, {}, 3 * (5 * 3 + 5)),
        (rnn.LRUCell, {"output_size": 2}, 3 * 5 + 2 * 5 * 3 + 2 * 2 * 5 + 2 * 3),
    ],
)
def test_the_number_of_parameters(
    cell_type: type[rnn.Cell], settings: dict[str, Any], count: int
) -> None:
    cell = cell_type(3, 5, **settings)
    assert sum(parameter.size for parameter in cell.parameters()) == count
    named = {name: shape for name, shape in cell.parameter_shapes(True).items() if shape}
    own = {name: p.shape for name, p in cell.named_parameters() if "norm" not in name}
    assert own == named


@every_kind
def test_initial_values_are_reproducible_and_reset_parameters_draws_them_again(kind: str) -> None:
    cell_type, settings = KINDS[kind].cell_type, KINDS[kind].settings
    cell = cell_type(50, 100, rng=7, **settings)
    other = cell_type(50, 100, rng=8, **settings)
    values = weights_of(cell)
    assert any((values[name] != value).any() for name, value in weights_of(other).items())
    for parameter in other.parameters():
        parameter.rebind(parameter.detach() + 1.0)
    before = list(other.parameters())
    other.reset_parameters(rng=7)
    assert all(a is b for a, b in zip(before, other.parameters(), strict=True))
    for name, value in weights_of(other).items():
        np.testing.assert_array_equal(value, values[name], err_msg=name)
        assert value.dtype == "float32"


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru", "mgu", "mingru", "lstm peepholes full"])
def test_initial_values_are_uniform(kind: str) -> None:
    cell = KINDS[kind].cell_type(50, 100, rng=7, **KINDS[kind].settings)
    for name, parameter in cell.named_parameters():
        largest = abs(parameter.numpy()).max()
        assert 0.09 < largest <= 0.1, name


def test_the_eigenvalues_of_an_lru_are_uniform_on_the_ring() -> None:
    cell = rnn.LRUCell(
        3, 4000, output_size=1, r_min=0.6, r_max=0.9, max_phase=1.0, dtype="float64", rng=0
    )
    re, im = (part.numpy() for part in cell.eigenvalues())
    magnitude, phase = np.hypot(re, im), np.arctan2(im, re)
    assert magnitude.min() >= 0.6
    assert magnitude.max() <= 0.9
    # By area: the quartiles of the squares lie evenly. 4,000 numbers: deviation 0.007.
    quartiles = (np.quantile(magnitude**2, [0.25, 0.5, 0.75]) - 0.36) / (0.81 - 0.36)
    np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.04)
    np.testing.assert_allclose(np.quantile(phase, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)
    np.testing.assert_allclose(np.exp(cell.gamma_log.numpy()) ** 2, 1 - magnitude**2, atol=1e-12)
    assert abs(cell.B_re.numpy().std() - np.sqrt(1 / 6)) < 0.02
    assert abs(cell.C_im.numpy().std() - np.sqrt(1 / 4000)) < 0.001


@every_kind
def test_state_dict_copies_and_pickles_compute_the_same(
    rng: np.random.Generator, kind: str
) -> None:
    cell = make(kind)
    cell.suffix = "_l0_reverse"
    assert all("_l0_reverse" in name for name in cell.state_dict())
    loaded = make(kind, rng=1)
    loaded.suffix = "_l0_reverse"
    loaded.load_state_dict(cell.state_dict())
    xs = mg.tensor(random_x(rng, 3))
    expected = rnn.unroll(cell, xs)[0].numpy()
    for twin in (loaded, copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        np.testing.assert_array_equal(rnn.unroll(twin, xs)[0].numpy(), expected)
        own = {id(parameter) for parameter in cell.parameters()}
        assert not own & {id(parameter) for parameter in twin.parameters()}


def test_a_cell_shows_its_options() -> None:
    assert repr(rnn.RNNCell(3, 4)) == "RNNCell(3, 4, nonlinearity='tanh')"
    assert repr(rnn.LSTMCell(3, 4)) == "LSTMCell(3, 4)"
    assert (
        repr(rnn.LSTMCell(3, 4, proj_size=2, peepholes="full", coupled=True, zoneout_h=0.1))
        == "LSTMCell(3, 4, proj_size=2, peepholes='full', coupled=True)\n"
        "  zoneout_h: Dropout(p=0.1)"
    )
    assert repr(rnn.GRUCell(3, 4, reset="before")) == "GRUCell(3, 4, reset='before')"
    assert repr(rnn.LRUCell(3, 4)) == "LRUCell(3, 4, output_size=4)"


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (-1, 4)])
@every_kind
def test_sizes_below_one_are_refused(kind: str, sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"at least 1, not|from 1 to"):
        KINDS[kind].cell_type(*sizes, **KINDS[kind].settings)


@pytest.mark.parametrize(
    ("cell_type", "settings", "message"),
    [
        (rnn.RNNCell, {"nonlinearity": "sigmoid"}, "'tanh' or 'relu', not 'sigmoid'"),
        (rnn.IndRNNCell, {"nonlinearity": None}, "'tanh' or 'relu', not None"),
        (rnn.LSTMCell, {"proj_size": 4}, "from 1 to hidden_size - 1 = 3, or 0 .* not 4"),
        (rnn.LSTMCell, {"proj_size": -1}, "or 0 for no projection; not -1"),
        (rnn.LSTMCell, {"peepholes": True}, "'diagonal', 'full' or None, not True"),
        (rnn.LSTMCell, {"zoneout_h": 1.0}, r"zoneout_h is a probability in \[0, 1\), not 1.0"),
        (rnn.LSTMCell, {"zoneout_c": -0.1}, r"zoneout_c is a probability in \[0, 1\), not -0.1"),
        (rnn.GRUCell, {"reset": "never"}, "'after' or 'before' .* not 'never'"),
        (rnn.LRUCell, {"output_size": 0}, "output_size is at least 1, not 0"),
        (rnn.LRUCell, {"r_min": 0.9, "r_max": 0.5}, "the ring needs .* not r_min=0.9, r_max=0.5"),
        (rnn.LRUCell, {"r_max": 1.5}, "the ring needs 0 <= r_min < r_max <= 1"),
        (rnn.LRUCell, {"max_phase": 0.0}, "max_phase=0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    cell_type: type[rnn.Cell], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cell_type(3, 4, **settings)


@every_kind
@pytest.mark.parametrize("shape", [(2,), (BATCH, 2), (5, BATCH, INPUTS), ()])
def test_an_x_of_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expects x \(batch, 3\), not \(") as error:
        make(kind)(mg.tensor(np.zeros(shape)))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("kind", ["tanh", "gru", "mingru"])
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
        make(kind)(zeros(BATCH, INPUTS), state)


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
        make("lstm")(zeros(BATCH, INPUTS), state)


def test_a_projected_lstm_expects_two_sizes_and_without_a_batch_no_batch() -> None:
    cell = make("lstm projected")
    with pytest.raises(ValueError, match=r"of shape \(\(2, 2\), \(2, 4\)\), not"):
        cell(zeros(BATCH, INPUTS), (zeros(BATCH, HIDDEN), zeros(BATCH, HIDDEN)))
    with pytest.raises(ValueError, match=r"of shape \(\(2,\), \(4,\)\), not \(\(1, 2\)"):
        cell(zeros(INPUTS), (zeros(1, 2), zeros(1, 4)))


# --------------------------------------------------------------------------------------
# A cell of one's own
# --------------------------------------------------------------------------------------


class Leaky(rnn.Cell):
    """h' = (h + tanh(W_ih x + W_hh h)) / 2,  with a module inside that has a weight."""

    def __init__(self, input_size: int, hidden_size: int, **settings: Any) -> None:
        super().__init__(input_size, hidden_size, bias=False, **settings)
        self.readout = nn.Linear(self.hidden_size, 1, rng=0)

    def project(self, xs: Tensor) -> Tensor:
        return xs @ self.weight_ih.T

    def step(self, projected: Tensor, state: Any) -> tuple[Tensor, Any]:
        h = (state + mg.tanh(mg.linear(self.masked(state), self.weight_hh, projected))) / 2.0
        return self.readout(h), h


def test_a_step_of_plain_numbers_is_one_of_a_tensor() -> None:
    cell = rnn.GRUCell(2, HIDDEN, rng=0)
    ys = [cell(x)[0].numpy() for x in ([[1.0, 2.0]], np.array([[1, 2]], "float32"))]
    np.testing.assert_array_equal(ys[0], cell(mg.tensor([[1.0, 2.0]]))[0].numpy())
    np.testing.assert_array_equal(ys[0], ys[1])


def test_a_subclass_writes_project_and_step() -> None:
    cell = Leaky(INPUTS, HIDDEN, rng=0)
    ys, h = rnn.unroll(cell, mg.tensor(np.ones((5, BATCH, INPUTS), "float32")))
    assert ys.shape == (5, BATCH, 1)
    assert h.shape == (BATCH, HIDDEN)
    cell.suffix = "_l1"
    assert set(cell.state_dict()) == {
        *["weight_ih_l1", "weight_hh_l1", "readout_l1.weight", "readout_l1.bias"]
    }


def test_a_subclass_that_writes_neither_is_told_so() -> None:
    class Half(rnn.Cell):
        def project(self, xs: Tensor) -> Tensor:
            return xs

    with pytest.raises(NotImplementedError, match="Cell needs a method project"):
        rnn.Cell(INPUTS, HIDDEN)(zeros(BATCH, INPUTS))
    with pytest.raises(NotImplementedError, match="Half needs a method step"):
        Half(INPUTS, HIDDEN)(zeros(BATCH, INPUTS))
