"""Modules, layers, containers, and initial values."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from transfer import on_device

import minigrad as mg
from minigrad import nn
from minigrad.arrays import owner
from minigrad.testing import check_gradients

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
    data = on_device(np.zeros(2))
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


def test_repr_shows_what_is_in_lists_and_dictionaries() -> None:
    assert repr(Net()) == (
        "Net(scale (), heads.b (1,), tied (3, 2))\n"
        "  first: Linear(weight (3, 2), bias (3,))\n"
        "  blocks.0: Linear(weight (3, 3), bias (3,))\n"
        "  blocks.1.0: Dropout(p=0.5)\n"
        "  blocks.1.1: Linear(weight (3, 3), bias (3,))\n"
        "  heads.a: Linear(weight (1, 3))"
    )


# ------------------------------------------------------------------------------ references back


class Child(nn.Module):
    """A module that knows where it is, and the others there."""

    def __init__(self, parent: nn.Module) -> None:
        self.parent = parent
        self.weight = nn.Parameter(mg.tensor([1.0]))


class Family(nn.Module):
    def __init__(self) -> None:
        self.registry: dict[str, Any] = {}
        self.registry["itself"] = self.registry
        self.children = [Child(self), Child(self)]
        self.registry["eldest"] = self.children[0]


def test_a_module_may_refer_to_its_parent() -> None:
    family = Family()
    first, second = family.children
    names = ["registry.eldest.weight", "children.1.weight"]
    assert [name for name, _ in family.named_parameters()] == names
    assert next(iter(family.parameters())) is first.weight
    assert list(family.modules()) == [family, first, second]
    assert [id(p) for p in first.parameters()] == [id(second.weight), id(first.weight)]
    family.eval()
    assert not second.training


def test_the_state_of_a_module_that_is_referred_to_from_inside() -> None:
    family, other = Family(), Family()
    state = family.state_dict()
    assert list(state) == [
        *("registry.eldest.weight", "children.0.weight", "children.1.weight"),
    ]
    family.children[1].weight.rebind(mg.tensor([5.0]))
    other.load_state_dict(family.state_dict())
    assert other.children[1].weight.tolist() == [5.0]


def test_repr_of_a_module_that_is_referred_to_from_inside() -> None:
    assert repr(Family()) == (
        "Family()\n"
        "  registry.eldest: Child(weight (1,))\n"
        "    parent: ...\n"
        "  children.0: Child(weight (1,))\n"
        "    parent: ...\n"
        "  children.1: Child(weight (1,))\n"
        "    parent: ..."
    )


def test_modules_that_all_know_each_other_are_walked_once() -> None:
    # By every path there would be 30! of them.
    peers = [Child(nn.Module()) for _ in range(30)]
    for peer in peers:
        peer.peers = peers  # type: ignore[attr-defined]
    assert len(list(peers[0].parameters())) == 30


def test_members_that_are_made_when_asked_for_are_all_found() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            self.parameter_of = {i: nn.Parameter(mg.tensor(float(i))) for i in range(50)}

        def members(self) -> Iterator[tuple[str, Any]]:
            yield from ((f"p{i}", [parameter]) for i, parameter in self.parameter_of.items())

    assert [p.item() for p in Lazy().parameters()] == [float(i) for i in range(50)]


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
        assert owner(theirs.array) is not owner(ours.array)
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
        parameter.rebind(parameter + 1.0)
    parameters = list(net.parameters())
    net.load_state_dict({name: form(value) for name, value in source.state_dict().items()})
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert net.tied is net.first.weight
    for ours, theirs in zip(net.parameters(), source.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert owner(ours.array) is not owner(theirs.array)


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


def test_two_values_for_one_parameter_are_refused() -> None:
    net = Net()
    before = [parameter.array for parameter in net.parameters()]
    state: dict[str, Any] = {name: value + 1.0 for name, value in net.state_dict().items()}
    state["tied"] = state["tied"] + 1.0
    with pytest.raises(
        ValueError, match=r"Net: tied differs from first\.weight, which is the same parameter"
    ):
        net.load_state_dict(state)
    assert all(p.array is array for p, array in zip(net.parameters(), before, strict=True))
    state["tied"] = state["first.weight"].numpy().copy()
    net.load_state_dict(state)
    assert net.tied is net.first.weight


def test_equal_values_for_one_parameter_may_be_nan() -> None:
    net = Net()
    state = {name: value * np.float32("nan") for name, value in net.state_dict().items()}
    net.load_state_dict(state)
    assert np.isnan(net.tied.numpy()).all()


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
    array = on_device(np.array([[1.0, 2.0]], "float32"))
    np.testing.assert_array_equal(layer(array).numpy(), expected)
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


@pytest.mark.parametrize("length", [1, 64, 65, 300])
@pytest.mark.parametrize("things", [1, 5, 1000])
def test_the_gradient_of_an_embedding_adds_up_what_is_read_several_times(
    length: int, things: int, rng: np.random.Generator
) -> None:
    layer = nn.Embedding(things, length, dtype="float64", rng=0)
    numbers, seed = rng.integers(0, things, (20, 3)), rng.normal(size=(20, 3, length))
    with mg.Tape() as tape:
        vectors = layer(mg.tensor(numbers))
    expected = np.zeros((things, length))
    np.add.at(expected, numbers, seed)
    found = tape.gradient(vectors, layer.weight, seed=seed)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13, atol=1e-13)


def test_embedding_takes_lists() -> None:
    layer = nn.Embedding(4, 3, rng=0)
    np.testing.assert_array_equal(layer([[1, 3]]).numpy(), layer.weight.numpy()[[[1, 3]]])


def test_embedding_starts_normally_distributed() -> None:
    values = nn.Embedding(200, 100, rng=0).weight.numpy()
    # Five standard errors of a mean and of a variance of 20,000 such numbers.
    assert abs(values.mean()) < 5 / np.sqrt(20_000)
    assert abs(values.var() - 1.0) < 5 * np.sqrt(2 / 20_000)


@pytest.mark.host  # on a device they are found in the debug scope alone
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


@pytest.mark.parametrize("training", [True, False])
def test_dropout_of_an_array_is_a_tensor(training: bool) -> None:
    assert isinstance(nn.Dropout(0.5).train(training)(np.ones(2)), mg.Tensor)


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


# ------------------------------------------------------------------------------ LayerNorm

NORMALIZED: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((4,), 4),
    ((3, 4), 4),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (3, 4)),
    ((2, 3, 4), (2, 3, 4)),
    ((0, 4), 4),
)


@pytest.mark.parametrize(("shape", "normalized"), NORMALIZED)
@pytest.mark.parametrize("affine", ["weight and bias", "weight", "nothing"])
def test_layer_norm_is_torchs(
    shape: tuple[int, ...], normalized: Any, affine: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    settings: dict[str, Any] = {
        "eps": 0.01,
        "elementwise_affine": affine != "nothing",
        "bias": affine == "weight and bias",
    }
    ours = nn.LayerNorm(normalized, dtype="float64", **settings)
    theirs = torch.nn.LayerNorm(normalized, dtype=torch.float64, **settings)
    names = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == names
    values = {name: rng.normal(size=p.shape) for name, p in ours.named_parameters()}
    ours.load_state_dict(values)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    x, g = rng.normal(3.0, 2.0, shape), rng.normal(size=shape)

    their_x = torch.tensor(x, requires_grad=True)
    expected = theirs(their_x)
    expected.backward(torch.tensor(g))
    our_x = mg.tensor(x, requires_grad=True)
    with mg.Tape() as tape:
        found = ours(our_x)
    gradients = tape.gradient(found, [our_x, *ours.parameters()], seed=g)
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients, [their_x, *theirs.parameters()], strict=True):
        np.testing.assert_allclose(a.numpy(), b.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_layer_norm_against_finite_differences(rng: np.random.Generator) -> None:
    def normalized(x: mg.Tensor, weight: mg.Tensor, bias: mg.Tensor) -> mg.Tensor:
        layer = nn.LayerNorm((3, 2))
        layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
        return layer(x)

    inputs = [rng.normal(size=shape) for shape in ((4, 3, 2), (3, 2), (3, 2))]
    check_gradients(normalized, *inputs)


def test_layer_norm_starts_without_effect_of_its_parameters(rng: np.random.Generator) -> None:
    layer, plain = nn.LayerNorm(5), nn.LayerNorm(5, elementwise_affine=False)
    x = rng.normal(size=(3, 5)).astype("float32")
    np.testing.assert_array_equal(layer(x).numpy(), plain(x).numpy())
    assert layer.weight is not None
    assert layer.weight.dtype == "float32"
    assert list(plain.parameters()) == []
    assert plain.bias is None


def test_layer_norm_of_equal_values_is_zero() -> None:
    x = mg.tensor(np.full((2, 3), 7.0), requires_grad=True)
    with mg.Tape() as tape:
        y = nn.LayerNorm(3)(x)
    assert y.tolist() == [[0.0] * 3] * 2
    np.testing.assert_array_equal(tape.gradient(y, x, seed=np.ones((2, 3))).numpy(), 0.0)


def test_layer_norm_of_large_half_precision_numbers() -> None:
    x = np.array([[-6e4, 6e4], [1e3, -1e3]], "float16")
    y = nn.LayerNorm(2, dtype="float16")(x)
    assert y.dtype == "float16"
    assert y.tolist() == [[-1.0, 1.0], [1.0, -1.0]]


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (3, 4, 1), (4,)])
def test_layer_norm_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"LayerNorm expects \(3, 4\) as the last axes"):
        nn.LayerNorm((3, 4))(np.zeros(shape, "float32"))


def test_layer_norm_refuses_what_else_is_wrong() -> None:
    with pytest.raises(ValueError, match="at least one axis"):
        nn.LayerNorm(())
    with pytest.raises(TypeError, match=r"LayerNorm needs a float tensor, not \(2,\) int64"):
        nn.LayerNorm(2)(np.ones(2, "int64"))


# ------------------------------------------------------------------------------ containers


def stack(**settings: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4, rng=0, **settings), mg.tanh, nn.Linear(4, 2, rng=1, **settings)
    )


def test_sequential_calls_one_after_the_other(rng: np.random.Generator) -> None:
    net = stack(dtype="float64")
    x = mg.tensor(rng.normal(size=(5, 3)))
    np.testing.assert_array_equal(net(x).numpy(), net[2](mg.tanh(net[0](x))).numpy())
    assert nn.Sequential()(x) is x


def test_sequential_is_torchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    ours = stack(dtype="float64")
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    theirs = theirs.double()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = rng.normal(size=(5, 3))
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(mg.tensor(x)).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_sequential_is_a_list() -> None:
    net = stack()
    first, function, last = net
    assert len(net) == 3
    assert net[-1] is last
    assert function is mg.tanh
    head = net[:2]
    assert type(head) is nn.Sequential
    assert list(head) == [first, function]
    assert [name for name, _ in head.named_parameters()] == ["0.weight", "0.bias"]
    net.append(nn.Dropout(0.5))
    net.insert(0, mg.relu)
    assert [name for name, _ in net.named_parameters()] == [
        *("1.weight", "1.bias", "3.weight", "3.bias")
    ]
    del net[0]
    net[1] = mg.sigmoid
    net[2:] = [last]
    assert list(net) == [first, mg.sigmoid, last]
    assert list(head) == [first, mg.tanh]


def test_sequential_looks() -> None:
    assert repr(nn.Sequential(nn.Dropout(0.25), mg.relu, nn.LayerNorm(2))) == (
        "Sequential(Dropout, relu, LayerNorm)\n"
        "  0: Dropout(p=0.25)\n"
        "  2: LayerNorm((2,), eps=1e-05)"
    )


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(TypeError, match="steps of a Sequential are modules or functions, not str"):
        nn.Sequential("tanh")  # type: ignore[arg-type]
    net = nn.Sequential()
    with pytest.raises(TypeError, match="not int"):
        net.append(1)


def test_a_module_list_names_its_parameters_as_a_plain_list_does() -> None:
    class Outer(nn.Module):
        def __init__(self, kind: Callable[..., Any]) -> None:
            self.layers = kind(nn.Linear(2, 2, rng=seed) for seed in range(2))

    listed, plain = Outer(nn.ModuleList), Outer(list)
    for (name, ours), (expected, theirs) in zip(
        listed.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert name == expected
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert listed.layers.eval() is listed.layers
    assert [layer.training for layer in listed.layers] == [False, False]
    with pytest.raises(NotImplementedError, match="ModuleList needs a method forward"):
        listed.layers(1.0)


def test_a_module_list_holds_modules() -> None:
    layers = nn.ModuleList([nn.Dropout()])
    for wrong in (mg.tanh, nn.Parameter(np.zeros(1)), "layer"):
        with pytest.raises(TypeError, match="a ModuleList holds modules, not"):
            layers.append(wrong)
        with pytest.raises(TypeError, match="a ModuleList holds modules, not"):
            layers[0] = wrong
        with pytest.raises(TypeError, match="a ModuleList holds modules, not"):
            layers[:] = [wrong]
    assert len(layers) == 1


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_a_copied_sequential_is_its_own(duplicate: Callable[[Any], Any]) -> None:
    net = stack()
    made = duplicate(net)
    assert made[1] is mg.tanh
    made[0].weight.rebind(made[0].weight + 1.0)
    assert not np.array_equal(made[0].weight.numpy(), net[0].weight.numpy())


# ------------------------------------------------------------------------------ init

MATRICES = (
    nn.init.glorot_uniform,
    nn.init.glorot_normal,
    nn.init.he_uniform,
    nn.init.he_normal,
    nn.init.orthogonal,
    nn.init.identity,
)
RANDOM = (nn.init.uniform, nn.init.normal, *MATRICES[:-1])
CONSTANT = (nn.init.zeros, nn.init.ones, nn.init.identity)


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


FANS: tuple[tuple[Callable[..., mg.Tensor], dict[str, Any], float], ...] = (
    (nn.init.glorot_uniform, {}, 2.0 / 300.0),
    (nn.init.glorot_normal, {}, 2.0 / 300.0),
    (nn.init.glorot_uniform, {"gain": 3.0}, 18.0 / 300.0),
    (nn.init.glorot_normal, {"gain": 3.0}, 18.0 / 300.0),
    (nn.init.he_uniform, {}, 2.0 / 200.0),
    (nn.init.he_normal, {}, 2.0 / 200.0),
    (nn.init.he_uniform, {"mode": "fan_out", "nonlinearity": "linear"}, 1.0 / 100.0),
    (nn.init.he_normal, {"mode": "fan_out", "nonlinearity": "tanh"}, 25.0 / 9.0 / 100.0),
)


@pytest.mark.parametrize(("initialise", "settings", "variance"), FANS)
def test_the_variance_is_that_of_the_fans(
    initialise: Callable[..., mg.Tensor], settings: dict[str, Any], variance: float
) -> None:
    values = initialise((100, 200), rng=0, dtype="float64", **settings).numpy()
    scaled = values / np.sqrt(variance)
    # Five standard errors of a mean and of a variance of 20,000 such numbers.
    assert abs(scaled.mean()) < 5 / np.sqrt(20_000)
    assert abs(scaled.var() - 1.0) < 5 * np.sqrt(2 / 20_000)
    assert (abs(scaled).max() < np.sqrt(3.0)) == (initialise.__name__.endswith("uniform"))


@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu"])
def test_gains_are_torchs(nonlinearity: str) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.nn.init.calculate_gain(nonlinearity)
    assert nn.init.calculate_gain(nonlinearity) == pytest.approx(expected, rel=1e-15)


def test_what_he_does_not_know() -> None:
    for initialise in (nn.init.he_uniform, nn.init.he_normal):
        with pytest.raises(ValueError, match="gain of 'gelu' is not known; known are linear"):
            initialise((2, 2), nonlinearity="gelu")
        with pytest.raises(ValueError, match="'fan_in' or 'fan_out', not 'fan_avg'"):
            initialise((2, 2), "fan_avg")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_initial_values_of_nothing(shape: tuple[int, int]) -> None:
    for initialise in MATRICES:
        assert initialise(shape).shape == shape


def test_normal_has_its_standard_deviation() -> None:
    values = nn.init.normal((100, 200), 3.0, rng=0, dtype="float64").numpy() / 3.0
    # Five standard errors of a mean and of a variance of 20,000 such numbers.
    assert abs(values.mean()) < 5 / np.sqrt(20_000)
    assert abs(values.var() - 1.0) < 5 * np.sqrt(2 / 20_000)


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constants(dtype: str) -> None:
    made = {
        0.0: nn.init.zeros((2, 3), dtype=dtype),
        1.0: nn.init.ones((2, 3), dtype=dtype),
        0.25: nn.init.constant((2, 3), 0.25, dtype=dtype),
    }
    for value, found in made.items():
        assert found.dtype == dtype
        assert not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), np.full((2, 3), value))


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_identity(shape: tuple[int, int]) -> None:
    np.testing.assert_array_equal(nn.init.identity(shape).numpy(), np.eye(*shape))
    np.testing.assert_array_equal(nn.init.identity(shape, 0.5).numpy(), 0.5 * np.eye(*shape))


@pytest.mark.parametrize("initialise", [*RANDOM, *CONSTANT])
def test_initial_values_are_floats(initialise: Callable[..., mg.Tensor]) -> None:
    with pytest.raises(TypeError, match=r"a float dtype is needed here .* not int32"):
        initialise((2, 2), dtype="int32")


@pytest.mark.parametrize("initialise", MATRICES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_what_is_for_matrices(initialise: Callable[..., mg.Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="for a matrix"):
        initialise(shape)
