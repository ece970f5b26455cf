"""Modules, layers, the cross-entropy, and initial values."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from finite_differences import check_gradients

import minigrad as mg
from minigrad import nn
from minigrad.nn.losses import Reduction

DUPLICATES: tuple[Callable[[Any], Any], ...] = (
    copy.deepcopy,
    lambda module: pickle.loads(pickle.dumps(module)),
)


class Net(nn.Module):
    """Members of every kind, one of its parameters under two names."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(mg.tensor(2.0))
        self.first = nn.Linear(2, 3, rng=0)
        self.blocks: list[Any] = [
            nn.Linear(3, 3, rng=1),
            (nn.Dropout(0.5, rng=2), nn.Linear(3, 3, rng=3)),
        ]
        self.heads: dict[str, Any] = {
            "a": nn.Linear(3, 1, bias=False, rng=4),
            "b": nn.Parameter(mg.tensor([1.0])),
        }
        self.tied = self.first.weight
        self.constant = mg.tensor([1.0])
        self.note = "not a parameter"

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        hidden = self.first(x) * self.scale
        output: mg.Tensor = self.heads["a"](hidden) + (x @ self.tied.T).sum() + self.heads["b"]
        return output


NAMES = [
    "scale",
    "first.weight",
    "first.bias",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.1.weight",
    "blocks.1.1.bias",
    "heads.a.weight",
    "heads.b",
]


# ------------------------------------------------------------------------------ Parameter


def test_a_parameter_is_a_leaf_that_shares_its_array() -> None:
    data = np.zeros(2)
    parameter = nn.Parameter(data)
    assert parameter.is_leaf
    assert parameter.array is data
    assert not isinstance(parameter.detach(), nn.Parameter)


def test_a_parameter_is_of_floats() -> None:
    with pytest.raises(TypeError, match="int64 is a constant"):
        nn.Parameter(np.zeros(2, "int64"))


# ------------------------------------------------------------------------------ Module


def test_parameters_are_named_by_where_they_are_and_counted_once() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]


def test_modules_are_found_once() -> None:
    net = Net()
    net.again = net.first  # type: ignore[attr-defined]
    kinds = [type(module) for module in net.modules()]
    assert kinds == [Net, nn.Linear, nn.Linear, nn.Dropout, nn.Linear, nn.Linear]


def test_a_module_is_called_by_its_forward() -> None:
    net, x = Net(), mg.tensor([[1.0, 2.0]])
    np.testing.assert_array_equal(net(x).numpy(), net.forward(x).numpy())
    with pytest.raises(NotImplementedError, match="Module needs a method forward"):
        nn.Module()(x)


def test_zero_grad() -> None:
    net = Net()
    with mg.Tape() as tape:
        loss = net(mg.tensor([[1.0, 2.0]])).sum()
    tape.backward(loss)
    assert net.tied.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_shared_parameter_gets_the_gradient_of_both_uses() -> None:
    net, x = Net(), mg.tensor([[1.0, 2.0]])
    with mg.Tape() as tape:
        loss = net(x).sum()
    tape.backward(loss)
    through_the_layer = 2.0 * net.heads["a"].weight.numpy().T @ x.numpy()
    expected = through_the_layer + x.numpy()
    assert net.first.weight.grad is not None
    np.testing.assert_allclose(net.first.weight.grad.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_train_and_eval_reach_every_module(mode: bool) -> None:
    net = Net()
    net.blocks[1][0].training = not mode
    assert (net.train() if mode else net.eval()) is net
    assert [module.training for module in net.modules()] == [mode] * 6


def test_modules_train_until_told_otherwise() -> None:
    assert all(module.training for module in Net().modules())


def test_repr_shows_what_is_inside() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter(mg.tensor([1.0, 2.0]))
            self.inner = Inner()
            self.drop = nn.Dropout(0.25)

    class Inner(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2, 3)

    assert repr(Outer()) == (
        "Outer(scale (2,))\n"
        "  inner: Inner()\n"
        "    linear: Linear(weight (3, 2), bias (3,))\n"
        "  drop: Dropout(p=0.25)"
    )


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_a_copied_module_is_its_own(duplicate: Callable[[Any], Any]) -> None:
    net = Net().eval()
    made = duplicate(net)
    assert isinstance(made, Net)
    assert not made.training
    assert [name for name, _ in made.named_parameters()] == NAMES
    assert made.tied is made.first.weight
    for ours, theirs in zip(net.parameters(), made.parameters(), strict=True):
        assert type(theirs) is nn.Parameter
        assert theirs.slot != ours.slot
        assert not np.shares_memory(theirs.array, ours.array)
        np.testing.assert_array_equal(theirs.numpy(), ours.numpy())


def test_to_keeps_the_parameters_and_moves_their_gradients() -> None:
    net = nn.Linear(2, 1)
    before = list(net.parameters())
    net.weight.grad = mg.tensor([[1.0, 2.0]])
    assert net.to("cpu") is net
    assert all(a is b for a, b in zip(net.parameters(), before, strict=True))
    assert net.weight.grad.tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="unknown device"):
        net.to("gpu")


# ------------------------------------------------------------------------------ state


def test_state_dict_has_shared_parameters_under_every_name() -> None:
    net = Net()
    state = net.state_dict()
    assert list(state) == [*NAMES, "tied"]
    assert state["tied"].array is state["first.weight"].array
    for value in state.values():
        assert type(value) is mg.Tensor
        assert not value.requires_grad


def test_state_dict_is_unaffected_by_later_updates() -> None:
    net = Net()
    state = net.state_dict()
    before = {name: value.numpy().copy() for name, value in state.items()}
    optimizer = mg.optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = mg.tensor(np.ones(parameter.shape, "float32"))
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert not np.array_equal(parameter.numpy(), before[name])
        np.testing.assert_array_equal(state[name].numpy(), before[name])


@pytest.mark.parametrize("form", [lambda t: t, mg.Tensor.numpy], ids=["tensors", "arrays"])
def test_load_state_dict(form: Callable[[mg.Tensor], Any]) -> None:
    source, net = Net(), Net()
    for parameter in source.parameters():
        parameter.rebind(parameter.numpy() + np.float32(1.0))
    parameters = list(net.parameters())
    net.load_state_dict({name: form(value) for name, value in source.state_dict().items()})
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert net.tied is net.first.weight
    for ours, theirs in zip(net.parameters(), source.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert not np.shares_memory(ours.array, theirs.array)


def test_a_state_that_does_not_fit_is_refused_with_all_that_is_wrong() -> None:
    net = Net()
    before = [parameter.array for parameter in net.parameters()]
    state: dict[str, Any] = {name: value + 1.0 for name, value in net.state_dict().items()}
    del state["first.bias"], state["heads.b"]
    state["decoder"] = mg.tensor(1.0)
    state["scale"] = mg.tensor([1.0])
    state["blocks.0.weight"] = state["blocks.0.weight"].astype("float64")
    with pytest.raises(ValueError, match="this state does not fit the Net") as raised:
        net.load_state_dict(state)
    for part in (
        "first.bias is missing",
        "heads.b is missing",
        "decoder is unknown",
        "scale is (1,) float32 instead of () float32",
        "blocks.0.weight is (3, 3) float64 instead of (3, 3) float32",
    ):
        assert part in str(raised.value)
    assert all(p.array is array for p, array in zip(net.parameters(), before, strict=True))


# ------------------------------------------------------------------------------ Linear


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(leading: tuple[int, ...], bias: bool, rng: np.random.Generator) -> None:
    layer = nn.Linear(3, 2, bias, dtype="float64", rng=0)
    x, g = rng.normal(size=(*leading, 3)), rng.normal(size=(*leading, 2))
    own_x = mg.tensor(x, requires_grad=True)
    with mg.Tape() as tape:
        y = layer(own_x)
    expected = x @ layer.weight.numpy().T
    if layer.bias is not None:
        expected = expected + layer.bias.numpy()
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)
    gradients = tape.gradient(y, [own_x, *layer.parameters()], seed=g)
    rows = g.reshape(-1, 2)
    closed_form = [g @ layer.weight.numpy(), rows.T @ x.reshape(-1, 3), rows.sum(0)]
    for ours, theirs in zip(gradients, closed_form, strict=False):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-14)
    assert len(gradients) == 2 + bias


def test_linear_takes_arrays_and_lists() -> None:
    layer = nn.Linear(2, 1, rng=0)
    expected = layer(mg.tensor([[1.0, 2.0]])).numpy()
    np.testing.assert_array_equal(layer(np.array([[1.0, 2.0]], "float32")).numpy(), expected)
    np.testing.assert_array_equal(layer([[1.0, 2.0]]).numpy(), expected)


def test_linear_starts_within_its_bounds() -> None:
    layer = nn.Linear(4, 1000, rng=0)
    assert layer.bias is not None
    for parameter in layer.parameters():
        values = parameter.numpy()
        assert parameter.dtype == "float32"
        assert -0.5 <= values.min() < -0.49
        assert 0.49 < values.max() < 0.5
    assert not np.array_equal(layer.weight.numpy()[:, 0], layer.bias.numpy())


def test_linear_without_features() -> None:
    assert nn.Linear(0, 2, bias=False)(mg.tensor(np.zeros((3, 0)))).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("shape", [(), (2,), (3, 2), (0,)])
def test_linear_refuses_other_features(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Linear expects 3 features.*shape \("):
        nn.Linear(3, 2)(mg.tensor(np.zeros(shape, "float32")))


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: nn.Linear(3, 2, **settings),
        lambda **settings: nn.Embedding(3, 2, **settings),
    ],
    ids=["Linear", "Embedding"],
)
def test_a_seed_makes_a_layer_reproducible_in_every_dtype(make: Callable[..., nn.Module]) -> None:
    reference = list(make(rng=7, dtype="float64").parameters())
    again = list(make(rng=np.random.default_rng(7), dtype="float64").parameters())
    single = list(make(rng=7).parameters())
    other = list(make(rng=8, dtype="float64").parameters())
    for a, b, c, d in zip(reference, again, single, other, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(a.numpy().astype("float32"), c.numpy())
        assert not np.array_equal(a.numpy(), d.numpy())


def test_a_generator_is_used_up() -> None:
    generator = np.random.default_rng(0)
    first, second = nn.Linear(3, 2, rng=generator), nn.Linear(3, 2, rng=generator)
    assert not np.array_equal(first.weight.numpy(), second.weight.numpy())


# ------------------------------------------------------------------------------ Embedding


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "uint64"])
def test_embedding(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    layer = nn.Embedding(4, 3, dtype="float64", rng=0)
    numbers = rng.integers(4, size=shape).astype(dtype)
    g = rng.normal(size=(*shape, 3))
    with mg.Tape() as tape:
        found = layer(mg.tensor(numbers))
    np.testing.assert_array_equal(found.numpy(), layer.weight.numpy()[numbers])
    expected = np.zeros((4, 3))
    np.add.at(expected, numbers, g)
    gradient = tape.gradient(found, layer.weight, seed=g)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("dtype", "count"), [("uint8", 256), ("uint8", 300), ("int8", 200)])
def test_an_embedding_of_more_things_than_the_dtype_of_the_numbers_counts(
    dtype: str, count: int
) -> None:
    layer = nn.Embedding(count, 1, dtype="float64", rng=0)
    with mg.Tape() as tape:
        total = layer(np.array([1, 2, 2], dtype)).sum()
    gradient = tape.gradient(total, layer.weight).numpy()
    np.testing.assert_array_equal(gradient[:4, 0], [0.0, 1.0, 2.0, 0.0])
    assert gradient.sum() == 3.0


def test_embedding_takes_lists() -> None:
    layer = nn.Embedding(4, 3, rng=0)
    np.testing.assert_array_equal(layer([[1, 3]]).numpy(), layer.weight.numpy()[[[1, 3]]])


def test_embedding_starts_normally_distributed() -> None:
    values = nn.Embedding(200, 100, rng=0).weight.numpy()
    # Five standard errors of a mean and of a variance of 20,000 such numbers.
    assert abs(values.mean()) < 5 / np.sqrt(20_000)
    assert abs(values.var() - 1.0) < 5 * np.sqrt(2 / 20_000)


@pytest.mark.parametrize(("number", "named"), [(-1, "-1"), (4, "4"), (255, "255")])
def test_embedding_refuses_numbers_out_of_range(number: int, named: str) -> None:
    with pytest.raises(IndexError, match=f"between 0 and 3; there is a {named}"):
        nn.Embedding(4, 3)([0, number])


@pytest.mark.parametrize("numbers", [[0.0, 1.0], [True, False]])
def test_embedding_refuses_what_is_no_integer(numbers: list[float]) -> None:
    with pytest.raises(TypeError, match=r"Embedding are integers, not (float32|bool)"):
        nn.Embedding(4, 3)(numbers)


# ------------------------------------------------------------------------------ Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_statistics(p: float) -> None:
    count = 100_000
    dropped = nn.Dropout(p, rng=0)(mg.tensor(np.ones(count))).numpy()
    assert set(np.unique(dropped)) == {0.0, 1.0 / (1.0 - p)}
    deviation = np.sqrt(p * (1.0 - p) / count)
    assert abs((dropped == 0.0).mean() - p) < 5 * deviation


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dropout_keeps_shape_and_dtype(shape: tuple[int, ...], dtype: str) -> None:
    dropped = nn.Dropout(0.5, rng=0)(np.ones(shape, dtype))
    assert dropped.shape == shape
    assert dropped.dtype == dtype


def test_the_gradient_of_dropout_passes_where_the_values_did() -> None:
    x = mg.tensor(np.ones(50), requires_grad=True)
    with mg.Tape() as tape:
        dropped = nn.Dropout(0.3, rng=0)(x)
        total = dropped.sum()
    np.testing.assert_array_equal(tape.gradient(total, x).numpy(), dropped.numpy())


def test_dropout_is_nothing_in_eval_and_at_zero() -> None:
    x = mg.tensor([1.0, 2.0])
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_dropout_is_reproducible_by_its_seed_and_new_at_each_call() -> None:
    x = mg.tensor(np.ones(64))
    first, second = nn.Dropout(0.5, rng=3), nn.Dropout(0.5, rng=3)
    masks = [first(x).numpy() for _ in range(3)]
    for mask in masks:
        np.testing.assert_array_equal(second(x).numpy(), mask)
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(nn.Dropout(0.5, rng=4)(x).numpy(), masks[0])


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match=rf"in \[0, 1\), not {p}"):
        nn.Dropout(p)


def test_dropout_refuses_integers() -> None:
    with pytest.raises(TypeError, match=r"Dropout needs a float tensor, not \(2,\) int64"):
        nn.Dropout(0.5)(np.ones(2, "int64"))


# ------------------------------------------------------------------------------ cross_entropy

REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
MASKS = ("none", "booleans", "weights")
CLASSES = 5


def drawn(
    shape: tuple[int, ...], mask: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Logits, targets, and a mask of the given kind that leaves something."""
    masks = {
        "none": None,
        "booleans": np.asarray(rng.random(shape) < 0.7),
        "weights": np.asarray(rng.uniform(0.0, 2.0, shape)),
    }
    chosen = masks[mask]
    if chosen is not None:
        chosen[(0,) * len(shape)] = 1
    logits = rng.normal(0.0, 3.0, (*shape, CLASSES))
    return logits, np.asarray(rng.integers(CLASSES, size=shape)), chosen


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_is_torchs(
    shape: tuple[int, ...], mask: str, reduction: Reduction, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    logits, targets, weights = drawn(shape, mask, rng)
    g = rng.normal(size=shape if reduction == "none" else ())

    theirs_in = torch.tensor(logits.reshape(-1, CLASSES), requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(
        theirs_in, torch.tensor(targets.reshape(-1)), reduction="none"
    )
    count: Any = targets.size
    if weights is not None:
        theirs = theirs * torch.tensor(weights.reshape(-1), dtype=torch.float64)
        count = weights.sum()
    if reduction == "none":
        theirs = theirs.reshape(shape)
    else:
        theirs = theirs.sum() / (count if reduction == "mean" else 1.0)
    theirs.backward(torch.tensor(g))

    ours_in = mg.tensor(logits, requires_grad=True)
    with mg.Tape() as tape:
        ours = nn.cross_entropy(ours_in, targets, weights, reduction=reduction)
    gradient = tape.gradient(ours, ours_in, seed=g)
    assert ours.shape == g.shape
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        gradient.numpy().reshape(-1, CLASSES), theirs_in.grad.numpy(), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_against_finite_differences(
    mask: str, reduction: Reduction, rng: np.random.Generator
) -> None:
    logits, targets, weights = drawn((2, 3), mask, rng)
    check_gradients(
        lambda x: nn.cross_entropy(x, targets, weights, reduction=reduction), [logits], order=2
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_cross_entropy_of_huge_logits(dtype: str, size: float) -> None:
    logits = mg.tensor(np.array([[size, 0.0, -size]] * 3, dtype), requires_grad=True)
    with mg.Tape() as tape:
        losses = nn.cross_entropy(logits, [0, 1, 2], reduction="none")
        total = losses.sum()
    np.testing.assert_allclose(losses.numpy(), [0.0, size, 2.0 * size], rtol=1e-6)
    np.testing.assert_array_equal(
        tape.gradient(total, logits).numpy(), [[0, 0, 0], [1, -1, 0], [1, 0, -1]]
    )


def test_cross_entropy_of_impossible_classes() -> None:
    logits = mg.tensor([[0.0, 0.0, -np.inf]], requires_grad=True)
    with mg.Tape() as tape:
        loss = nn.cross_entropy(logits, [0])
    assert loss.item() == pytest.approx(np.log(2.0), rel=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), [[-0.5, 0.5, 0.0]], rtol=1e-6)


def test_cross_entropy_takes_lists_and_keeps_the_dtype() -> None:
    loss = nn.cross_entropy([[0.0, 0.0], [0.0, 0.0]], [0, 1], [True, False])
    assert loss.item() == pytest.approx(np.log(2.0), rel=1e-6)
    assert loss.dtype == "float32"
    weighted = nn.cross_entropy(mg.tensor([[0.0, 0.0]]), [1], np.array([0.5]))
    assert weighted.dtype == "float32"


def test_cross_entropy_of_byte_targets() -> None:
    logits = mg.tensor(np.zeros((2, 256)), requires_grad=True)
    with mg.Tape() as tape:
        loss = nn.cross_entropy(logits, np.array([3, 255], "uint8"), reduction="sum")
    gradient = tape.gradient(loss, logits).numpy()
    assert gradient[0, 3] == gradient[1, 255] == 1.0 / 256 - 1.0


def test_cross_entropy_of_nothing() -> None:
    logits, targets = np.zeros((0, 3)), np.zeros(0, "int64")
    assert nn.cross_entropy(logits, targets, reduction="sum").item() == 0.0
    assert nn.cross_entropy(logits, targets, reduction="none").shape == (0,)
    with pytest.raises(ValueError, match="nothing to average"):
        nn.cross_entropy(logits, targets)


def test_cross_entropy_of_what_is_all_masked() -> None:
    logits, targets, masked = np.zeros((2, 3)), [0, 1], [False, False]
    assert nn.cross_entropy(logits, targets, masked, reduction="sum").item() == 0.0
    with pytest.raises(ValueError, match="nothing to average"):
        nn.cross_entropy(logits, targets, masked)


@pytest.mark.parametrize(
    ("logits", "targets"), [((2, 3), (3,)), ((2, 3), (2, 1)), ((), ()), ((2, 3), ())]
)
def test_cross_entropy_refuses_shapes_that_do_not_fit(
    logits: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"logits \(\.\.\., classes\) need targets"):
        nn.cross_entropy(np.zeros(logits), np.zeros(targets, "int64"))


def test_cross_entropy_refuses_what_else_is_wrong() -> None:
    logits = mg.tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"the mask is \(2, 1\) float64, the targets \(2,\)"):
        nn.cross_entropy(logits, [0, 1], np.ones((2, 1)))
    with pytest.raises(ValueError, match="not 'average'"):
        nn.cross_entropy(logits, [0, 1], reduction="average")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="targets of cross_entropy are integers, not float32"):
        nn.cross_entropy(logits, [0.0, 1.0])
    for wrong in (-1, 3):
        with pytest.raises(IndexError, match=f"between 0 and 2; there is a {wrong}"):
            nn.cross_entropy(logits, [0, wrong])


# ------------------------------------------------------------------------------ init


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (1, 5), (0, 3)])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal_is_orthogonal(shape: tuple[int, int], gain: float) -> None:
    q = nn.init.orthogonal(shape, gain, rng=0, dtype="float64").numpy()
    assert q.shape == shape
    shorter = q @ q.T if shape[0] <= shape[1] else q.T @ q
    np.testing.assert_allclose(shorter, gain**2 * np.eye(min(shape)), atol=1e-13)


def test_orthogonal_prefers_no_sign() -> None:
    # Without the correction by the signs of R, LAPACK's choice of signs is drawn every time.
    drawn_signs = {nn.init.orthogonal((1, 1), rng=seed).item() for seed in range(20)}
    assert drawn_signs == {-1.0, 1.0}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_fills_its_half_open_range(dtype: str) -> None:
    values = nn.init.uniform((100_000,), -1.0, 3.0, rng=0, dtype=dtype).numpy()
    assert -1.0 <= values.min() < -0.99
    assert 2.99 < values.max() < 3.0


def test_glorot_uniform_fills_its_range() -> None:
    values = nn.init.glorot_uniform((100, 200), rng=0).numpy()
    bound = np.sqrt(6.0 / 300.0)
    assert -bound <= values.min() < -0.99 * bound
    assert 0.99 * bound < values.max() <= bound


def test_normal_has_its_standard_deviation() -> None:
    values = nn.init.normal((100, 200), 3.0, rng=0, dtype="float64").numpy() / 3.0
    # Five standard errors of a mean and of a variance of 20,000 such numbers.
    assert abs(values.mean()) < 5 / np.sqrt(20_000)
    assert abs(values.var() - 1.0) < 5 * np.sqrt(2 / 20_000)


RANDOM = (nn.init.uniform, nn.init.normal, nn.init.glorot_uniform, nn.init.orthogonal)


@pytest.mark.parametrize("initialise", RANDOM)
@pytest.mark.parametrize("dtype", [None, "float16", "float32", "float64"])
def test_initial_values_are_constants_reproducible_in_every_dtype(
    initialise: Callable[..., mg.Tensor], dtype: str | None
) -> None:
    values = initialise((3, 4), rng=5, dtype=dtype)
    assert values.shape == (3, 4)
    assert values.dtype == (dtype or "float32")
    assert not values.requires_grad
    reference = initialise((3, 4), rng=np.random.default_rng(5), dtype="float64").numpy()
    np.testing.assert_array_equal(values.numpy(), reference.astype(values.dtype))
    assert not np.array_equal(values.numpy(), initialise((3, 4), rng=6, dtype=dtype).numpy())


@pytest.mark.parametrize("initialise", RANDOM)
def test_without_a_seed_no_two_draws_are_equal(initialise: Callable[..., mg.Tensor]) -> None:
    np.random.seed(0)  # noqa: NPY002  the global state has no say
    first = initialise((3, 4)).numpy()
    np.random.seed(0)  # noqa: NPY002
    assert not np.array_equal(first, initialise((3, 4)).numpy())


def test_zeros() -> None:
    made = nn.init.zeros((2, 3), dtype="float64")
    assert made.dtype == "float64"
    np.testing.assert_array_equal(made.numpy(), np.zeros((2, 3)))


@pytest.mark.parametrize("initialise", [*RANDOM, nn.init.zeros])
def test_initial_values_are_floats(initialise: Callable[..., mg.Tensor]) -> None:
    with pytest.raises(TypeError, match=r"a float dtype is needed here .* not int32"):
        initialise((2, 2), dtype="int32")


@pytest.mark.parametrize("initialise", [nn.init.glorot_uniform, nn.init.orthogonal])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_what_is_for_matrices(initialise: Callable[..., mg.Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="for a matrix"):
        initialise(shape)
