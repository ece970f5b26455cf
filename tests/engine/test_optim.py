"""Optimizers: their updates against PyTorch's, what they never write to, and their state."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transfer import ARRAY, to_host

import minigrad as mg
from minigrad import nn, optim
from minigrad.arrays import owner
from minigrad.optim.optimizer import Optimizer

RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "nesterov": True, "weight_decay": 0.02}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.02}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True, "alpha": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.02}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.02}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.7, 0.95), "eps": 1e-4}),
    ("Adam", {"lr": 0.05, "betas": (0.0, 0.9), "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.05, "betas": (0.7, 0.95), "weight_decay": 0.0}),
]
every_rule = pytest.mark.parametrize(("kind", "settings"), RULES, ids=str)

SHAPES = ((3, 2), (2,), ())


def make(kind: str, parameters: Any, settings: dict[str, Any]) -> Optimizer:
    optimizer: Optimizer = getattr(optim, kind)(parameters, **settings)
    return optimizer


def leaves(dtype: str = "float64", seed: int = 0) -> list[mg.Tensor]:
    """A weight, a bias and a factor of no dimensions."""
    rng = np.random.default_rng(seed)
    return [mg.tensor(rng.normal(size=shape), dtype, requires_grad=True) for shape in SHAPES]


def quadratic(parameters: list[mg.Tensor]) -> mg.Tensor:
    """A sum of squares, whose gradient with respect to p is 2 p."""
    total = mg.tensor(0.0, "float64")
    for parameter in parameters:
        total = total + (parameter * parameter).sum()
    return total


def descend(optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        with mg.Tape() as tape:
            loss = quadratic(optimizer.parameters)
        tape.backward(loss)
        optimizer.step()


# ------------------------------------------------------------------------------ PyTorch


def follow_torch(
    kind: str,
    settings: dict[str, Any],
    used: Callable[[int], list[int]] = lambda step: [0, 1, 2],
    lr: Callable[[int], float | None] = lambda step: None,
    groups: Callable[[list[Any]], Any] = lambda parameters: parameters,
) -> None:
    """Fit one small network with both libraries for fifty steps, comparing after each.

    ``used`` says which parameters the loss depends on at a step, ``lr`` sets the learning
    rate, and ``groups`` divides the parameters.
    """
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    inputs, targets = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    x, y = mg.tensor(inputs), mg.tensor(targets)
    their_x, their_y = torch.tensor(inputs), torch.tensor(targets)
    ours = leaves()
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in ours]
    optimizer = make(kind, groups(ours), settings)
    reference = getattr(torch.optim, kind)(groups(theirs), **settings)
    for step in range(50):
        rate = lr(step)
        if rate is not None:
            optimizer.lr = reference.param_groups[0]["lr"] = rate
        present = used(step)
        weight, bias, factor = (p if i in present else p.detach() for i, p in enumerate(ours))
        with mg.Tape() as tape:
            loss = ((mg.tanh(x @ weight + bias) * factor - y) ** 2).mean()
        optimizer.zero_grad()
        tape.backward(loss)
        optimizer.step(allow_missing=len(present) < len(ours))

        weight, bias, factor = (p if i in present else p.detach() for i, p in enumerate(theirs))
        their_loss = ((torch.tanh(their_x @ weight + bias) * factor - their_y) ** 2).mean()
        reference.zero_grad()
        their_loss.backward()
        reference.step()

        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


@every_rule
def test_fifty_steps_are_torchs(kind: str, settings: dict[str, Any]) -> None:
    follow_torch(kind, settings)


@every_rule
def test_the_learning_rate_may_be_set_at_any_time(kind: str, settings: dict[str, Any]) -> None:
    follow_torch(kind, settings, lr=lambda step: 0.1 / (1 + step))


@every_rule
def test_a_parameter_without_a_gradient_waits(kind: str, settings: dict[str, Any]) -> None:
    follow_torch(kind, settings, used=lambda step: [0, 2] if step < 5 or step % 3 else [1, 2])


@every_rule
def test_groups_are_torchs(kind: str, settings: dict[str, Any]) -> None:
    follow_torch(
        kind,
        settings,
        used=lambda step: [0, 1, 2] if step % 3 else [1, 2],
        groups=lambda p: [
            {"params": [p[0]], "weight_decay": 0.05},
            {"params": p[1:], "lr": 0.03},
        ],
    )


def test_groups_may_keep_different_states() -> None:
    follow_torch(
        "SGD",
        {"lr": 0.1},
        groups=lambda p: [{"params": p[:2]}, {"params": p[2:], "momentum": 0.9}],
    )


def test_rmsprop_of_a_constant_gradient_stays_finite() -> None:
    # The variance of a constant gradient is 0, and comes out below 0 by rounding.
    x = mg.tensor(np.array([0.1, 0.3, 0.7]), requires_grad=True)
    optimizer = optim.RMSprop([x], alpha=0.1, centered=True, eps=1e-3)
    for _ in range(60):
        x.grad = mg.tensor(np.array([0.1, 1.3, 0.7]))
        optimizer.step()
    state = optimizer.state_dict()
    variance = state["0.v"].numpy() - state["0.m"].numpy() ** 2
    assert (variance < 0.0).any()
    assert np.isfinite(x.numpy()).all()


def test_sgd_by_hand() -> None:
    x = mg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    optimizer = optim.SGD([x], lr=0.5, momentum=0.5)
    for expected in ([0.5, 1.5], [-0.25, 0.75]):
        x.grad = mg.tensor(np.array([1.0, 1.0]))
        optimizer.step()
        assert x.tolist() == expected


# ------------------------------------------------------------------------------ rebinding


@every_rule
def test_parameters_are_rebound_and_never_written_to(kind: str, settings: dict[str, Any]) -> None:
    parameters = leaves()
    optimizer = make(kind, parameters, settings)
    held = []
    for _ in range(3):
        held += [(p.array, p.array.copy()) for p in parameters]
        descend(optimizer, 1)
        held += [(p.grad.array, p.grad.array.copy()) for p in parameters if p.grad is not None]
    assert len(held) == 18
    for array, copied in held:
        np.testing.assert_array_equal(to_host(array), to_host(copied))
    latest = [owner(p.array) for p in parameters]
    assert not any(owner(array) is array_now for array, _ in held for array_now in latest)


@every_rule
def test_a_retained_tape_keeps_the_gradient_of_the_old_values(
    kind: str, settings: dict[str, Any]
) -> None:
    parameters = leaves()
    optimizer = make(kind, parameters, settings)
    with mg.Tape() as tape:
        loss = quadratic(parameters)
    before = [2.0 * p.numpy() for p in parameters]
    tape.backward(loss, retain=True)
    optimizer.step()
    for gradient, expected, parameter in zip(
        tape.gradient(loss, parameters), before, parameters, strict=True
    ):
        np.testing.assert_array_equal(gradient.numpy(), expected)
        assert not np.array_equal(2.0 * parameter.numpy(), expected)


@every_rule
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_stay_arrays_of_their_dtype(
    kind: str, settings: dict[str, Any], dtype: str
) -> None:
    parameters = leaves(dtype)
    optimizer = make(kind, parameters, settings)
    descend(optimizer, 2)
    for parameter, shape in zip(parameters, SHAPES, strict=True):
        assert type(parameter.array) is ARRAY
        assert parameter.shape == shape
        assert parameter.dtype == dtype
    for name, value in optimizer.state_dict().items():
        assert value.dtype == dtype or name in ("steps", "lr", "updates")


def test_a_parameter_of_no_dimensions_stays_usable() -> None:
    parameter = nn.Parameter(mg.tensor(1.0))
    descend(optim.SGD([parameter], lr=0.25), 1)
    assert type(parameter.array) is ARRAY
    assert parameter.item() == 0.5


@every_rule
def test_a_learning_rate_computed_by_numpy_changes_no_dtype(
    kind: str, settings: dict[str, Any]
) -> None:
    ours, theirs = leaves("float32"), leaves("float32")
    optimizer, reference = make(kind, ours, settings), make(kind, theirs, settings)
    optimizer.lr = np.float64(0.125)
    reference.lr = 0.125
    descend(optimizer, 2)
    descend(reference, 2)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# ------------------------------------------------------------------------------ which parameters


@every_rule
def test_duplicates_are_updated_once(kind: str, settings: dict[str, Any]) -> None:
    once, twice = leaves(), leaves()
    descend(make(kind, once, settings), 3)
    optimizer = make(kind, [*twice, twice[0], *twice], settings)
    assert [id(p) for p in optimizer.parameters] == [id(p) for p in twice]
    descend(optimizer, 3)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_missing_gradient_is_named_and_nothing_is_updated() -> None:
    layer = nn.Linear(2, 1, rng=0)
    optimizer = optim.Adam(layer.named_parameters())
    layer.weight.grad = mg.tensor([[1.0, 1.0]])
    before = layer.weight.array
    with pytest.raises(ValueError, match=r"computed for bias: .*allow_missing=True"):
        optimizer.step()
    assert layer.weight.array is before
    assert optimizer.steps == 0
    with pytest.raises(ValueError, match="computed for parameter 1:"):
        optim.SGD(layer.parameters(), lr=0.1).step()


def test_allow_missing_leaves_the_others_alone() -> None:
    layer = nn.Linear(2, 1, rng=0)
    optimizer = optim.SGD(layer.parameters(), lr=1.0, momentum=0.5, weight_decay=0.1)
    layer.weight.grad = mg.tensor([[1.0, 1.0]])
    assert layer.bias is not None
    weight, bias = layer.weight.array, layer.bias.array
    optimizer.step(allow_missing=True)
    assert layer.bias.array is bias
    assert not np.array_equal(layer.weight.numpy(), to_host(weight))


def test_zero_grad() -> None:
    parameters = leaves()
    optimizer = optim.SGD(parameters, lr=0.1)
    descend(optimizer, 1)
    assert all(p.grad is not None for p in parameters)
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)


@pytest.mark.parametrize(
    "wrong", [mg.tensor([1.0]), np.zeros(2), 1.0, "weight"], ids=lambda w: type(w).__name__
)
def test_only_leaves_are_trained(wrong: Any) -> None:
    with pytest.raises(TypeError, match="parameter 1 cannot be trained"):
        optim.SGD([leaves()[0], wrong], lr=0.1)
    with pytest.raises(TypeError, match="decoder cannot be trained"):
        optim.SGD([("decoder", wrong)], lr=0.1)


def test_a_computed_tensor_is_not_trained() -> None:
    with mg.Tape():
        computed = leaves()[0] * 2.0
        with pytest.raises(TypeError, match="parameter 0 cannot be trained"):
            optim.SGD([computed], lr=0.1)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("SGD", {"lr": -0.1}, "lr must be at least 0, not -0.1"),
        ("SGD", {"lr": float("nan")}, "lr must be at least 0, not nan"),
        ("SGD", {"lr": float("inf")}, "lr must be at least 0, not inf"),
        ("SGD", {"lr": 0.1, "momentum": -0.5}, "momentum must be at least 0"),
        ("SGD", {"lr": 0.1, "weight_decay": -0.5}, "weight_decay must be at least 0"),
        ("Adam", {"lr": -0.1}, "lr must be at least 0"),
        ("Adam", {"betas": (1.0, 0.9)}, "the first beta must be at least 0 and below 1"),
        ("Adam", {"betas": (0.9, -0.1)}, "the second beta must be at least 0 and below 1"),
        ("Adam", {"eps": -1e-8}, "eps must be at least 0"),
        ("Adam", {"weight_decay": -0.5}, "weight_decay must be at least 0"),
        ("AdamW", {"weight_decay": -0.5}, "weight_decay must be at least 0"),
        ("SGD", {"lr": 0.1, "nesterov": True}, "nesterov=True needs a momentum above 0"),
        ("RMSprop", {"lr": -0.1}, "lr must be at least 0"),
        ("RMSprop", {"alpha": 1.0}, "alpha must be at least 0 and below 1, not 1.0"),
        ("RMSprop", {"momentum": -0.5}, "momentum must be at least 0"),
        ("RMSprop", {"eps": -1e-8}, "eps must be at least 0"),
        ("Adagrad", {"lr_decay": -0.5}, "lr_decay must be at least 0"),
        ("Adagrad", {"initial_accumulator_value": -1.0}, "accumulator_value must be at least 0"),
    ],
)
def test_bad_settings_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, leaves(), settings)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameters to train"):
        optim.Adam([])


def test_an_optimizer_needs_an_update_rule() -> None:
    with pytest.raises(NotImplementedError, match="Optimizer needs a method update"):
        descend(Optimizer(leaves(), lr=0.1), 1)


def test_a_single_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes several parameters: write \[w\]"):
        optim.SGD(leaves()[0], lr=0.1)


def test_repr() -> None:
    assert repr(optim.AdamW(leaves(), lr=0.25)) == "AdamW(3 parameters, lr=0.25)"
    divided = optim.SGD(two_groups(leaves()), lr=0.25)
    assert repr(divided) == "SGD(3 parameters in 2 groups, lr=0.25 and 0.5)"
    divided.lr = 0.125
    assert repr(divided) == "SGD(3 parameters in 2 groups, lr=0.125)"


# ------------------------------------------------------------------------------ groups


def two_groups(parameters: list[mg.Tensor]) -> list[dict[str, Any]]:
    return [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}]


def test_groups_have_all_settings() -> None:
    weight, bias, factor = leaves()
    optimizer = optim.SGD(two_groups([weight, bias, factor]), lr=0.25, momentum=0.9)
    rest = {"momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    assert [list(group.pop("params")) for group in optimizer.groups] == [[weight], [bias, factor]]
    assert optimizer.groups == [{"lr": 0.25, **rest}, {"lr": 0.5, **rest}]
    assert [id(p) for p in optimizer.parameters] == [id(p) for p in (weight, bias, factor)]


def test_one_group_is_there_without_being_asked_for() -> None:
    parameters = leaves()
    (group,) = optim.SGD(iter(parameters), lr=0.25).groups
    assert group["params"] == parameters
    assert group["lr"] == 0.25


def test_the_settings_of_a_group_may_be_changed() -> None:
    still, moved = leaves()[:2]
    optimizer = optim.SGD([{"params": [still]}, {"params": [moved]}], lr=0.1)
    optimizer.groups[0]["lr"] = np.float64(0.0)
    before = still.numpy().copy(), moved.numpy().copy()
    descend(optimizer, 1)
    np.testing.assert_array_equal(still.numpy(), before[0])
    np.testing.assert_allclose(moved.numpy(), before[1] * 0.8, rtol=1e-14)


def test_the_rate_of_several_groups() -> None:
    optimizer = optim.SGD(two_groups(leaves()), lr=0.25)
    with pytest.raises(
        ValueError, match=r"the learning rates \[0.25, 0.5\]: read optimizer.groups"
    ):
        _ = optimizer.lr
    optimizer.lr = 0.125
    assert optimizer.lr == 0.125
    assert [group["lr"] for group in optimizer.groups] == [0.125, 0.125]


def test_groups_of_named_parameters() -> None:
    layer = nn.Linear(2, 1, rng=0)
    optimizer = optim.SGD([{"params": layer.named_parameters()}], lr=0.1)
    layer.weight.grad = mg.tensor([[1.0, 1.0]])
    with pytest.raises(ValueError, match="computed for bias:"):
        optimizer.step()


def test_a_group_may_be_added_later() -> None:
    weight, bias, factor = ours = leaves()
    theirs = copies(ours)
    optimizer = optim.SGD([weight, bias], lr=0.1, momentum=0.5)
    optimizer.add_group({"params": [factor], "lr": 0.2})
    reference = optim.SGD(
        [{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.2}], lr=0.1, momentum=0.5
    )
    descend(optimizer, 3)
    descend(reference, 3)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_group_that_is_wrong_is_refused_and_not_added() -> None:
    weight, bias, _ = leaves()
    optimizer = optim.SGD([weight], lr=0.1)
    with pytest.raises(TypeError, match="a dictionary with the key 'params'"):
        optimizer.add_group({"parameters": [bias]})
    with pytest.raises(TypeError, match=r"SGD has no setting eps; those of a group are lr, mom"):
        optimizer.add_group({"params": [bias], "eps": 0.1})
    with pytest.raises(ValueError, match="lr must be at least 0, not -1"):
        optimizer.add_group({"params": [bias], "lr": -1.0})
    with pytest.raises(ValueError, match="parameter 2 is in another group of parameters already"):
        optimizer.add_group({"params": [bias, weight]})
    with pytest.raises(TypeError, match="parameter 1 cannot be trained"):
        optimizer.add_group({"params": [1.0]})
    assert optimizer.parameters == [weight]
    assert len(optimizer.groups) == len(optimizer.updates) == len(optimizer.state) == 1


def test_groups_and_tensors_do_not_mix() -> None:
    weight, bias, _ = leaves()
    mixed: list[Any] = [weight, {"params": [bias]}]
    with pytest.raises(TypeError, match="parameter 1 cannot be trained"):
        optim.SGD(mixed, lr=0.1)


def test_a_state_keeps_the_rates_of_the_groups() -> None:
    ours = leaves()
    optimizer = optim.Adam(two_groups(ours), lr=0.25)
    descend(optimizer, 3)
    optimizer.groups[1]["lr"] = 0.125
    state = optimizer.state_dict()
    assert state["lr"].tolist() == [0.25, 0.125]
    theirs = copies(ours)
    resumed = optim.Adam(two_groups(theirs))
    resumed.load_state_dict(state)
    assert [group["lr"] for group in resumed.groups] == [0.25, 0.125]
    descend(optimizer, 3)
    descend(resumed, 3)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(ValueError, match=r"lr is \(2,\) float64 instead of \(1,\)"):
        optim.Adam(leaves()).load_state_dict(state)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copied_optimizer_trains_its_own_parameters(duplicate: Callable[[Any], Any]) -> None:
    optimizer = optim.Adam(two_groups(leaves()))
    descend(optimizer, 2)
    made = duplicate(optimizer)
    descend(optimizer, 2)
    descend(made, 2)
    for a, b in zip(optimizer.parameters, made.parameters, strict=True):
        assert a is not b
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# ------------------------------------------------------------------------------ state


def copies(parameters: list[mg.Tensor]) -> list[mg.Tensor]:
    return [mg.tensor(p.detach(), requires_grad=True) for p in parameters]


@every_rule
def test_a_state_continues_bit_for_bit(kind: str, settings: dict[str, Any]) -> None:
    first = leaves()
    optimizer = make(kind, first, settings)
    descend(optimizer, 7)
    optimizer.lr *= 0.5
    second = copies(first)
    resumed = make(kind, second, settings)
    resumed.load_state_dict(optimizer.state_dict())
    assert (resumed.lr, resumed.steps) == (optimizer.lr, 7)
    descend(optimizer, 7)
    descend(resumed, 7)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@every_rule
def test_a_fresh_state_can_be_loaded(kind: str, settings: dict[str, Any]) -> None:
    used = make(kind, leaves(), settings)
    descend(used, 3)
    fresh = make(kind, copies(used.parameters), settings)
    used.load_state_dict(fresh.state_dict())
    assert used.steps == 0
    descend(used, 3)
    descend(fresh, 3)
    for a, b in zip(used.parameters, fresh.parameters, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@every_rule
def test_a_state_with_a_parameter_that_never_had_a_gradient(
    kind: str, settings: dict[str, Any]
) -> None:
    first = leaves()
    optimizer = make(kind, first, settings)
    first[0].grad = mg.tensor(np.ones(SHAPES[0]))
    optimizer.step(allow_missing=True)
    second = copies(first)
    resumed = make(kind, second, settings)
    resumed.load_state_dict(optimizer.state_dict())
    descend(optimizer, 3)
    descend(resumed, 3)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@every_rule
def test_a_state_is_a_snapshot(kind: str, settings: dict[str, Any]) -> None:
    optimizer = make(kind, leaves(), settings)
    descend(optimizer, 2)
    state = optimizer.state_dict()
    before = {name: value.numpy().copy() for name, value in state.items()}
    descend(optimizer, 2)
    other = make(kind, leaves(), settings)
    other.load_state_dict(state)
    descend(other, 2)
    assert {"steps", "lr"} <= before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(state[name].numpy(), value)


def adam_state(dtype: str = "float64", count: int = len(SHAPES)) -> dict[str, Any]:
    optimizer = optim.Adam(leaves(dtype)[:count], lr=0.5)
    descend(optimizer, 3)
    return dict(optimizer.state_dict())


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in adam_state().items() if key != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "lr is missing; steps is missing; updates is missing"),
        (without("steps"), "steps is missing"),
        (without("2.v"), "2.v is missing"),
        (adam_state(count=2), r"updates is \(2,\) int64 instead of \(3,\)"),
        (adam_state() | {"3.m": np.ones(2)}, "3.m is unknown"),
        (adam_state() | {"0.velocity": np.ones((3, 2))}, "0.velocity is unknown"),
        (adam_state() | {"weight": np.ones(2)}, "weight is unknown"),
        (adam_state() | {"1.m": np.ones((2, 1))}, r"1.m is \(2, 1\) float64 for a \(2,\) float64"),
        (adam_state("float32"), r"1.m is \(2,\) float32 for a \(2,\) float64"),
        (adam_state() | {"lr": np.ones(2)}, r"lr is \(2,\) float64 instead of \(1,\)"),
        (adam_state() | {"steps": np.ones(2)}, "steps"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, Any], message: str) -> None:
    optimizer = optim.Adam(leaves(), lr=0.125)
    optimizer.load_state_dict(adam_state())
    before = {name: value.tolist() for name, value in optimizer.state_dict().items()}
    with pytest.raises(ValueError, match=f"this state does not fit the Adam: .*{message}"):
        optimizer.load_state_dict(state)
    assert {name: value.tolist() for name, value in optimizer.state_dict().items()} == before


def test_a_state_of_another_rule_is_refused() -> None:
    momentum = optim.SGD(leaves(), lr=0.1, momentum=0.9)
    descend(momentum, 1)
    with pytest.raises(ValueError, match=r"does not fit the SGD: 0\.velocity is unknown"):
        optim.SGD(leaves(), lr=0.1).load_state_dict(momentum.state_dict())
    plain = optim.SGD(leaves(), lr=0.1)
    descend(plain, 1)
    with pytest.raises(ValueError, match=r"0\.velocity is missing"):
        momentum.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_float16_parameters_are_updated_in_float32(kind: str) -> None:
    w = mg.tensor([1.0, 1.0], "float16", requires_grad=True)
    optimizer = make(kind, [w], {"lr": 0.01})
    for _ in range(3):
        w.grad = mg.tensor([1e-4, 0.0], "float16")
        optimizer.step()
    assert np.isfinite(w.numpy()).all()
    assert w.dtype == "float16"
    assert w.numpy()[1] == pytest.approx(1.0, abs=1e-3)
    again = make(kind, [mg.tensor([1.0, 1.0], "float16", requires_grad=True)], {"lr": 0.01})
    again.load_state_dict(optimizer.state_dict())
    assert again.steps == 3


def test_settings_computed_by_numpy_change_no_dtype() -> None:
    settings = {"lr": np.float64(0.1), "weight_decay": np.float64(0.1)}
    for kind, more in (("SGD", {}), ("AdamW", {"betas": (np.float64(0.9), np.float64(0.99))})):
        w = mg.tensor([1.0], requires_grad=True)
        optimizer = make(kind, [w], {**settings, **more})
        w.grad = mg.tensor([1.0])
        optimizer.step()
        assert w.dtype == "float32"
