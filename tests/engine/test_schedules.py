"""Learning-rate schedules: against PyTorch's, composed, resumed, and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim

RATES = (0.1, 0.75)
STEPS = 50

SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("ExponentialLR", {"gamma": 0.95}),
    ("ExponentialLR", {"gamma": 1.0}),
    ("CosineAnnealingLR", {"T_max": 50}),
    ("CosineAnnealingLR", {"T_max": 80, "eta_min": 0.05}),
    ("CosineAnnealingLR", {"T_max": 12, "eta_min": 0.02}),
    ("LinearWarmup", {"total_iters": 10}),
    ("LinearWarmup", {"total_iters": 80, "start_factor": 0.01}),
]
every_schedule = pytest.mark.parametrize(("kind", "settings"), SCHEDULES, ids=str)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def optimizer() -> optim.Optimizer:
    """Two groups of one parameter, with the RATES."""
    leaves = [mg.tensor(np.ones(2), requires_grad=True) for _ in RATES]
    return optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(leaves, RATES, strict=True)], lr=1)


def torchs_optimizer(torch: Any) -> Any:
    leaves = [torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in RATES]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(leaves, RATES, strict=True)]
    return torch.optim.SGD(groups, lr=1.0)


def rates(of: optim.Optimizer) -> list[float]:
    return [group["lr"] for group in of.groups]


def train(of: optim.Optimizer) -> None:
    for parameter in of.parameters:
        parameter.grad = mg.tensor(np.array([1.0, -0.5]))
    of.step()


def make(kind: str, of: optim.Optimizer, settings: dict[str, Any]) -> optim.Schedule:
    schedule: optim.Schedule = getattr(optim, kind)(of, **settings)
    return schedule


def assert_torchs(
    torch: Any, ours: Callable[[optim.Optimizer], Any], theirs: Callable[[Any], Any]
) -> None:
    """Rates and parameters agree to 1e-12 for fifty steps."""
    own, reference = optimizer(), torchs_optimizer(torch)
    schedule, their_schedule = ours(own), theirs(reference)
    for _ in range(STEPS):
        expected = [group["lr"] for group in reference.param_groups]
        np.testing.assert_allclose(rates(own), expected, rtol=1e-12, atol=1e-12)
        train(own)
        for group in reference.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.tensor([1.0, -0.5], dtype=torch.float64)
        reference.step()
        theirs_now = [p.detach().numpy() for g in reference.param_groups for p in g["params"]]
        for a, b in zip(own.parameters, theirs_now, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-12)
        schedule.step()
        their_schedule.step()


# ------------------------------------------------------------------------------ PyTorch


@every_schedule
def test_schedules_are_torchs(torch: Any, kind: str, settings: dict[str, Any]) -> None:
    name = "LinearLR" if kind == "LinearWarmup" else kind
    assert_torchs(
        torch,
        lambda own: make(kind, own, settings),
        lambda reference: getattr(torch.optim.lr_scheduler, name)(reference, **settings),
    )


# Torch's warm-up after a warm-up would begin from what the first one left.
@pytest.mark.parametrize(
    ("kind", "settings"), [given for given in SCHEDULES if given[0] != "LinearWarmup"], ids=str
)
def test_a_warmup_and_another_schedule_are_torchs(
    torch: Any, kind: str, settings: dict[str, Any]
) -> None:
    there = torch.optim.lr_scheduler

    def theirs(reference: Any) -> Any:
        warmup = there.LinearLR(reference, start_factor=0.1, total_iters=8)
        then = getattr(there, kind)(reference, **settings)
        return there.SequentialLR(reference, [warmup, then], milestones=[8])

    def ours(own: optim.Optimizer) -> optim.Schedule:
        then = make(kind, own, settings)
        return optim.LinearWarmup(own, total_iters=8, start_factor=0.1, then=then)

    assert_torchs(torch, ours, theirs)


PLATEAUS: list[dict[str, Any]] = [
    {"patience": 3},
    {"patience": 0, "factor": 0.5, "threshold": 0.01},
    {"patience": 2, "threshold": 0.05, "threshold_mode": "abs"},
    {"mode": "max", "patience": 2, "threshold": 0.02},
    {"mode": "max", "patience": 2, "threshold": 0.05, "threshold_mode": "abs"},
    {"patience": 1, "cooldown": 4, "factor": 0.5},
    {"patience": 0, "factor": 0.5, "min_lr": 0.01},
    {"patience": 0, "factor": 0.5, "min_lr": [0.01, 0.2]},
    {"patience": 0, "factor": 0.5, "eps": 0.05},
]


@pytest.mark.parametrize("settings", PLATEAUS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_reduce_on_plateau_is_torchs(torch: Any, settings: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    metrics = np.exp(-np.arange(STEPS) / 10.0) + 0.05 * rng.normal(size=STEPS)
    metrics[20] = np.nan
    own, reference = optimizer(), torchs_optimizer(torch)
    schedule = optim.ReduceLROnPlateau(own, **settings)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **settings)
    for metric in metrics:
        schedule.step(metric)
        theirs.step(metric)
        expected = [group["lr"] for group in reference.param_groups]
        np.testing.assert_allclose(rates(own), expected, rtol=1e-12, atol=1e-12)
        assert schedule.best == theirs.best
    assert rates(own) != list(RATES)


def test_a_metric_may_be_a_tensor() -> None:
    own = optimizer()
    schedule = optim.ReduceLROnPlateau(own, patience=0)
    for loss in (1.0, 2.0):
        schedule.step(mg.tensor(loss))
    assert rates(own) == [rate * 0.1 for rate in RATES]


# ------------------------------------------------------------------------------ ownership


def test_a_warmup_leads_to_the_base_rate_of_what_follows() -> None:
    own = optimizer()
    then = optim.LinearWarmup(own, total_iters=2, start_factor=0.5)
    schedule = optim.LinearWarmup(own, total_iters=2, start_factor=0.0, then=then)
    seen = []
    for _ in range(6):
        seen.append(rates(own)[1])
        schedule.step()
    assert seen == [0.0, 0.375, 0.375, 0.5625, 0.75, 0.75]


def test_a_warmup_from_nothing() -> None:
    own = optimizer()
    schedule = optim.LinearWarmup(own, total_iters=2, start_factor=0.0)
    seen = []
    for _ in range(4):
        seen.append(rates(own)[1])
        schedule.step()
    assert seen == [0.0, 0.375, 0.75, 0.75]


@every_schedule
def test_a_rate_set_by_hand_lasts_until_the_next_step(kind: str, settings: dict[str, Any]) -> None:
    own, other = optimizer(), optimizer()
    schedule, undisturbed = make(kind, own, settings), make(kind, other, settings)
    own.lr = 123.0
    schedule.step()
    undisturbed.step()
    assert rates(own) == rates(other)


def test_rates_stay_python_floats() -> None:
    own = optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=np.float64(0.1))
    schedule = optim.ExponentialLR(own, gamma=0.5)
    train_once = mg.tensor([1.0])
    own.parameters[0].grad = train_once
    schedule.step()
    own.step()
    assert own.parameters[0].dtype == "float32"
    assert type(own.lr) is float


def test_a_schedule_needs_a_rate() -> None:
    with pytest.raises(NotImplementedError, match="Schedule needs a method rate"):
        optim.Schedule(optimizer())


def test_a_schedule_of_ones_own() -> None:
    class Inverse(optim.Schedule):
        def rate(self, base: float, t: int) -> float:
            return base / (1 + t)

    own = optimizer()
    schedule = Inverse(own)
    schedule.step()
    assert rates(own) == [0.05, 0.375]


def test_a_group_that_came_later_is_noticed() -> None:
    own = optimizer()
    schedule = optim.ExponentialLR(own, gamma=0.5)
    own.add_group({"params": [mg.tensor(1.0, requires_grad=True)]})
    with pytest.raises(ValueError, match="was made for 2 groups of parameters, and there are 3"):
        schedule.step()


def test_reprs() -> None:
    own = optimizer()
    assert repr(optim.StepLR(own, 3)) == "StepLR(steps=0, lr=0.1 and 0.75)"
    assert repr(optim.ReduceLROnPlateau(own)) == "ReduceLROnPlateau(best=inf, bad_steps=0)"


# ------------------------------------------------------------------------------ state


@every_schedule
@pytest.mark.parametrize("warmed_up", [False, True])
def test_a_schedule_continues_bit_for_bit(
    kind: str, settings: dict[str, Any], warmed_up: bool
) -> None:
    def scheduled(own: optim.Optimizer) -> optim.Schedule:
        schedule = make(kind, own, settings)
        return optim.LinearWarmup(own, 10, then=schedule) if warmed_up else schedule

    first, second = optimizer(), optimizer()
    schedule = scheduled(first)
    for _ in range(7):
        train(first)
        schedule.step()
    state, of_optimizer = schedule.state_dict(), first.state_dict()
    # The one that goes on begins elsewhere, and the order of loading makes no difference.
    second.lr = 5.0
    resumed = scheduled(second)
    resumed.load_state_dict({name: value.numpy() for name, value in state.items()})
    second.load_state_dict(of_optimizer)
    for a, b in zip(first.parameters, second.parameters, strict=True):
        b.rebind(a.detach())
    assert (resumed.steps, resumed.base_lrs) == (7, schedule.base_lrs)
    for _ in range(20):
        assert rates(second) == rates(first)
        for own, its in ((first, schedule), (second, resumed)):
            train(own)
            its.step()
    for a, b in zip(first.parameters, second.parameters, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert state["steps"].item() == 7


def test_a_plateau_continues_bit_for_bit() -> None:
    losses = [1.0, 0.5, 0.6, 0.6, 0.7, 0.7, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    settings: dict[str, Any] = {"patience": 1, "cooldown": 2, "factor": 0.3}
    for cut in range(len(losses)):
        first, second = optimizer(), optimizer()
        schedule = optim.ReduceLROnPlateau(first, **settings)
        resumed = optim.ReduceLROnPlateau(second, **settings)
        for loss in losses[:cut]:
            schedule.step(loss)
        resumed.load_state_dict(schedule.state_dict())
        second.load_state_dict(first.state_dict())
        for loss in losses[cut:]:
            schedule.step(loss)
            resumed.step(loss)
            assert rates(second) == rates(first)
            assert resumed.state_dict().keys() == schedule.state_dict().keys()
        assert rates(first)[0] < 0.1


def test_states_that_do_not_fit_are_refused() -> None:
    own = optimizer()
    schedule, plateau = optim.StepLR(own, 3), optim.ReduceLROnPlateau(own)
    one = optim.StepLR(optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=0.1), 3)
    for wrong in ({}, plateau.state_dict(), one.state_dict()):
        with pytest.raises(ValueError, match="this state does not fit the StepLR"):
            schedule.load_state_dict(wrong)
    with pytest.raises(ValueError, match="this state does not fit the ReduceLROnPlateau"):
        plateau.load_state_dict(schedule.state_dict())
    assert schedule.base_lrs == list(RATES)


# ------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("StepLR", {"step_size": 0}, "step_size is at least 1, not 0"),
        ("StepLR", {"step_size": 3, "gamma": -0.1}, "gamma must be at least 0"),
        ("ExponentialLR", {"gamma": float("nan")}, "gamma must be at least 0, not nan"),
        ("CosineAnnealingLR", {"T_max": 0}, "T_max is at least 1, not 0"),
        ("CosineAnnealingLR", {"T_max": 5, "eta_min": -1.0}, "eta_min must be at least 0"),
        ("LinearWarmup", {"total_iters": 0}, "total_iters is at least 1, not 0"),
        ("LinearWarmup", {"total_iters": 5, "start_factor": 1.5}, "at least 0 and at most 1"),
        ("ReduceLROnPlateau", {"factor": 1.0}, "factor must be at least 0 and below 1"),
        ("ReduceLROnPlateau", {"patience": -1}, "patience must be at least 0"),
        ("ReduceLROnPlateau", {"threshold": -1.0}, "threshold must be at least 0"),
        ("ReduceLROnPlateau", {"cooldown": -1}, "cooldown must be at least 0"),
        ("ReduceLROnPlateau", {"eps": -1.0}, "eps must be at least 0"),
        ("ReduceLROnPlateau", {"mode": "least"}, "the mode is 'min' or 'max', not 'least'"),
        ("ReduceLROnPlateau", {"threshold_mode": "x"}, "threshold_mode is 'rel' or 'abs'"),
        ("ReduceLROnPlateau", {"min_lr": [0.1]}, "one for each of the 2 groups"),
    ],
)
def test_bad_settings_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    own = optimizer()
    with pytest.raises(ValueError, match=message):
        getattr(optim, kind)(own, **settings)
    assert rates(own) == list(RATES)


def test_a_warmup_for_another_optimizer_is_refused() -> None:
    then = optim.StepLR(optimizer(), 3)
    with pytest.raises(ValueError, match="after the warm-up is for another optimizer"):
        optim.LinearWarmup(optimizer(), 3, then=then)
