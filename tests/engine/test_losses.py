"""Losses: against PyTorch, against finite differences, at the extremes, and refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn.losses import Reduction
from minigrad.testing import check_gradients

REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
MASKS = ("none", "booleans", "weights")
SHAPES = ((), (1,), (6,), (2, 3), (2, 3, 4))

every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
every_mask = pytest.mark.parametrize("mask", MASKS)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def drawn_mask(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> np.ndarray | None:
    """A mask of the given kind that leaves something."""
    masks = {
        "none": None,
        "booleans": np.asarray(rng.random(shape) < 0.7),
        "weights": np.asarray(rng.uniform(0.0, 2.0, shape)),
    }
    chosen = masks[kind]
    if chosen is not None:
        chosen[(0,) * len(shape)] = 1
    return chosen


def reduced(torch: Any, losses: Any, mask: np.ndarray | None, reduction: Reduction) -> Any:
    """Torch's losses, weighted and put together."""
    count: Any = losses.numel()
    if mask is not None:
        losses = losses * torch.tensor(mask.astype("float64"))
        count = mask.sum()
    if reduction == "none":
        return losses
    return losses.sum() / (count if reduction == "mean" else 1.0)


def assert_torchs(
    torch: Any,
    ours: Callable[..., mg.Tensor],
    theirs: Callable[..., Any],
    inputs: list[np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Values, and gradients with respect to all inputs, agree to 1e-12."""
    their_inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = theirs(*their_inputs)
    g = rng.normal(size=tuple(expected.shape))
    expected.backward(torch.tensor(g))
    leaves = [mg.tensor(x, requires_grad=True) for x in inputs]
    with mg.Tape() as tape:
        found = ours(*leaves)
    gradients = tape.gradient(found, leaves, seed=g)
    assert found.shape == g.shape
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients, their_inputs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.grad.numpy(), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------ of elements

#: A loss of predictions and targets, its settings, and how the targets are drawn.
ELEMENTWISE: list[tuple[str, dict[str, Any], str]] = [
    ("mse_loss", {}, "normal"),
    ("huber_loss", {}, "normal"),
    ("huber_loss", {"delta": 0.3}, "normal"),
    ("huber_loss", {"delta": 5.0}, "normal"),
    ("binary_cross_entropy_with_logits", {}, "random"),
    ("binary_cross_entropy_with_logits", {"pos_weight": 2.5}, "random"),
]
elementwise = pytest.mark.parametrize(("name", "settings", "targets"), ELEMENTWISE)
each_elementwise = pytest.mark.parametrize(
    "loss", [nn.mse_loss, nn.huber_loss, nn.binary_cross_entropy_with_logits]
)


@elementwise
@pytest.mark.parametrize("shape", SHAPES)
@every_mask
@every_reduction
def test_losses_of_elements_are_torchs(
    torch: Any,
    name: str,
    settings: dict[str, Any],
    targets: str,
    shape: tuple[int, ...],
    mask: str,
    reduction: Reduction,
    rng: np.random.Generator,
) -> None:
    weights = drawn_mask(shape, mask, rng)
    inputs = [rng.normal(0.0, 3.0, shape), np.asarray(getattr(rng, targets)(size=shape))]
    their_settings = {
        key: torch.tensor(value, dtype=torch.float64) if key == "pos_weight" else value
        for key, value in settings.items()
    }
    assert_torchs(
        torch,
        lambda x, y: getattr(nn, name)(x, y, weights, reduction=reduction, **settings),
        lambda x, y: reduced(
            torch,
            getattr(torch.nn.functional, name)(x, y, reduction="none", **their_settings),
            weights,
            reduction,
        ),
        inputs,
        rng,
    )


@elementwise
@every_mask
@every_reduction
def test_losses_of_elements_against_finite_differences(
    name: str,
    settings: dict[str, Any],
    targets: str,
    mask: str,
    reduction: Reduction,
    rng: np.random.Generator,
) -> None:
    shape = (2, 3)
    weights = drawn_mask(shape, mask, rng)
    check_gradients(
        lambda x, y: getattr(nn, name)(x, y, weights, reduction=reduction, **settings),
        rng.normal(0.0, 3.0, shape),
        np.asarray(getattr(rng, targets)(size=shape)),
    )


def test_binary_cross_entropy_is_smooth_at_zero() -> None:
    # A loss that is put together from max(x, 0) and |x| has no second derivative there.
    check_gradients(
        lambda x: nn.binary_cross_entropy_with_logits(x, [0.25, 1.0], reduction="none"),
        np.zeros(2),
    )


def test_pos_weight_is_for_each_class(torch: Any, rng: np.random.Generator) -> None:
    weight = rng.uniform(0.5, 3.0, 4)
    assert_torchs(
        torch,
        lambda x, y: nn.binary_cross_entropy_with_logits(x, y, pos_weight=weight),
        lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(
            x, y, pos_weight=torch.tensor(weight)
        ),
        [rng.normal(size=(3, 4)), rng.random((3, 4))],
        rng,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_of_huge_logits(dtype: str) -> None:
    logits = mg.tensor(np.array([1e30, -1e30, 1e4, -1e4], dtype), requires_grad=True)
    for target, expected in ((1, [0.0, 1e30, 0.0, 1e4]), (0, [1e30, 0.0, 1e4, 0.0])):
        with mg.Tape() as tape:
            losses = nn.binary_cross_entropy_with_logits(logits, [target] * 4, reduction="none")
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-6)
        gradient = tape.gradient(losses, logits, seed=np.ones(4, dtype)).numpy()
        np.testing.assert_array_equal(gradient, np.array([1.0, 0.0, 1.0, 0.0]) - target)


def test_binary_cross_entropy_of_the_almost_certain() -> None:
    loss = nn.binary_cross_entropy_with_logits(np.array([40.0]), [1])
    np.testing.assert_allclose(loss.item(), np.exp(-40.0), rtol=1e-12)


def test_huber_loss_of_what_is_an_outlier_by_a_hair() -> None:
    error = mg.tensor(np.array([-2.0, -0.5, 0.0, 0.5, 2.0]), requires_grad=True)
    with mg.Tape() as tape:
        losses = nn.huber_loss(error, np.zeros(5), delta=0.5, reduction="none")
    assert losses.tolist() == [0.875, 0.125, 0.0, 0.125, 0.875]
    gradient = tape.gradient(losses, error, seed=np.ones(5))
    assert gradient.tolist() == [-0.5, -0.5, 0.0, 0.5, 0.5]


@each_elementwise
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("other", ["bool", "int64", "float32", "float64"])
def test_a_loss_has_the_dtype_of_the_predictions(
    loss: Callable[..., mg.Tensor], dtype: str, other: str
) -> None:
    predictions = np.array([0.5, -1.0], dtype)
    targets, mask = np.array([0, 1], other), np.array([1, 1], other)
    for reduction in REDUCTIONS:
        for given in (targets, mg.tensor(targets)):
            assert loss(predictions, given, mask, reduction=reduction).dtype == dtype
        assert loss(predictions, [0.0, 1.0], [1.0, 0.0], reduction=reduction).dtype == dtype


@pytest.mark.parametrize("masked", [False, True])
def test_means_of_many_half_precision_losses(masked: bool) -> None:
    count = 70_000
    x, mask = np.full(count, 2.0, "float16"), np.ones(count, bool) if masked else None
    assert nn.mse_loss(x, np.zeros(count), mask).item() == 4.0
    logits, targets = np.zeros((count, 2), "float16"), np.zeros(count, "int64")
    assert nn.cross_entropy(logits, targets, mask).item() == np.float16(np.log(2.0))


def test_targets_in_a_list_are_as_exact_as_the_predictions() -> None:
    assert nn.mse_loss(np.array([0.1]), [0.1]).item() == 0.0


@each_elementwise
def test_losses_of_nothing(loss: Callable[..., mg.Tensor]) -> None:
    nothing = np.zeros((0, 2))
    assert loss(nothing, nothing, reduction="sum").item() == 0.0
    assert loss(nothing, nothing, reduction="none").shape == (0, 2)
    with pytest.raises(ValueError, match=f"{loss.__name__}: there is nothing to average"):
        loss(nothing, nothing)


@pytest.mark.host  # to see on a device that all is masked would be to wait for it
@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (nn.mse_loss, [[[1.0, 1.0]]]),
        (nn.huber_loss, [[[1.0, 1.0]]]),
        (nn.binary_cross_entropy_with_logits, [[[1.0, 1.0]]]),
        (nn.quantile_loss, [[1.0], (0.25, 0.75)]),
        (nn.cross_entropy, [[1]]),
    ],
)
def test_a_mean_of_what_is_all_masked_is_refused(
    loss: Callable[..., mg.Tensor], arguments: list[Any]
) -> None:
    masked = np.zeros(np.shape(arguments[0]), bool)
    with pytest.raises(ValueError, match=f"{loss.__name__}: there is nothing to average"):
        loss(np.ones((1, 2)), *arguments, mask=masked)


@each_elementwise
@pytest.mark.parametrize("shapes", [((3, 1), (3,)), ((3,), ()), ((2, 3), (3, 2))])
def test_losses_do_not_broadcast(loss: Callable[..., mg.Tensor], shapes: Any) -> None:
    predictions, targets = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=f"{loss.__name__}: predictions and targets have one sh"):
        loss(predictions, targets)


@each_elementwise
def test_losses_refuse_what_else_is_wrong(loss: Callable[..., mg.Tensor]) -> None:
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match=rf"{loss.__name__}: the mask is \(2,\) float64, and the"):
        loss(x, x, np.ones(2))
    with pytest.raises(ValueError, match="not 'average'"):
        loss(x, x, reduction="average")
    with pytest.raises(TypeError, match=rf"{loss.__name__}: the predictions are floats, not \(2,"):
        loss(np.zeros(2, "int64"), np.zeros(2))


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan")])
def test_huber_loss_refuses_what_is_no_threshold(delta: float) -> None:
    with pytest.raises(ValueError, match=f"huber_loss: delta is above 0, not {delta}"):
        nn.huber_loss([1.0], [0.0], delta=delta)


def test_a_pos_weight_that_does_not_fit_is_refused() -> None:
    x = np.zeros(3)
    with pytest.raises(ValueError, match=r"pos_weight broadcasts to the logits \(3,\) float64"):
        nn.binary_cross_entropy_with_logits(x, x, pos_weight=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        nn.binary_cross_entropy_with_logits(x, x, pos_weight=np.ones(2))


# ------------------------------------------------------------------------------ quantile_loss

QUANTILES = (0.1, 0.5, 0.75)


@pytest.mark.parametrize("shape", SHAPES)
@every_mask
@every_reduction
def test_quantile_loss_is_the_pinball_loss(
    shape: tuple[int, ...], mask: str, reduction: Reduction, rng: np.random.Generator
) -> None:
    weights = drawn_mask(shape, mask, rng)
    predictions, targets = rng.normal(size=(*shape, 3)), np.asarray(rng.normal(size=shape))
    error = targets[..., None] - predictions
    losses = np.where(error > 0, QUANTILES * error, (np.array(QUANTILES) - 1) * error).mean(-1)
    weighted = losses if weights is None else losses * weights
    count = losses.size if weights is None else weights.sum()
    expected = {"none": weighted, "sum": weighted.sum(), "mean": weighted.sum() / count}[reduction]
    found = nn.quantile_loss(predictions, targets, QUANTILES, weights, reduction=reduction)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@every_mask
@every_reduction
def test_quantile_loss_against_finite_differences(
    mask: str, reduction: Reduction, rng: np.random.Generator
) -> None:
    weights = drawn_mask((2, 3), mask, rng)
    check_gradients(
        lambda x, y: nn.quantile_loss(x, y, QUANTILES, weights, reduction=reduction),
        rng.normal(size=(2, 3, 3)),
        rng.normal(size=(2, 3)),
    )


def test_quantile_loss_is_least_at_the_quantiles(rng: np.random.Generator) -> None:
    sample = rng.exponential(size=1001)

    def loss(predictions: np.ndarray) -> float:
        repeated = np.broadcast_to(predictions, (len(sample), 3))
        return nn.quantile_loss(repeated, sample, QUANTILES).item()

    best = np.quantile(sample, QUANTILES)
    for change in 0.01 * np.concatenate([np.eye(3), -np.eye(3)]):
        assert loss(best) < loss(best + change)


def test_quantile_loss_of_the_median_is_half_the_absolute_error() -> None:
    losses = nn.quantile_loss([[3.0], [-1.0]], [1.0, 1.0], [0.5], reduction="none")
    assert losses.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_quantile_loss_has_the_dtype_of_the_predictions(dtype: str) -> None:
    predictions = np.zeros((2, 3), dtype)
    for targets in (np.ones(2), mg.tensor([1, 2]), [True, False]):
        assert nn.quantile_loss(predictions, targets, QUANTILES).dtype == dtype


def test_quantile_loss_refuses_what_is_wrong() -> None:
    for wrong in ((), (0.0, 0.5), (0.5, 1.0), (float("nan"),)):
        with pytest.raises(ValueError, match="quantiles are above 0 and below 1, not"):
            nn.quantile_loss(np.zeros((2, 1)), [0.0, 0.0], wrong)
    for shape in ((2, 2), (2,), (3, 3)):
        with pytest.raises(ValueError, match=r"predictions \(\.\.\., quantiles\) of 3 quantiles"):
            nn.quantile_loss(np.zeros(shape), [0.0, 0.0], QUANTILES)
    with pytest.raises(TypeError, match="quantile_loss: the predictions are floats"):
        nn.quantile_loss(np.zeros((2, 3), int), [0, 0], QUANTILES)
    with pytest.raises(ValueError, match="quantile_loss: the mask is"):
        nn.quantile_loss(np.zeros((2, 3)), [0.0, 0.0], QUANTILES, np.ones((2, 3)))


# ------------------------------------------------------------------------------ nll_loss


CLASSES = 5


def classified(
    shape: tuple[int, ...], mask: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Logits, targets, and a mask of the given kind."""
    chosen = drawn_mask(shape, mask, rng)
    logits = rng.normal(0.0, 3.0, (*shape, CLASSES))
    return logits, np.asarray(rng.integers(CLASSES, size=shape)), chosen


@pytest.mark.parametrize("shape", SHAPES)
@every_mask
@every_reduction
def test_nll_loss_is_torchs(
    torch: Any, shape: tuple[int, ...], mask: str, reduction: Reduction, rng: np.random.Generator
) -> None:
    logits, targets, weights = classified(shape, mask, rng)

    def theirs(x: Any) -> Any:
        losses = torch.nn.functional.nll_loss(
            x.reshape(-1, CLASSES), torch.tensor(targets.reshape(-1)), reduction="none"
        )
        return reduced(torch, losses.reshape(shape), weights, reduction)

    assert_torchs(
        torch,
        lambda x: nn.nll_loss(x, targets, weights, reduction=reduction),
        theirs,
        [logits],
        rng,
    )


def test_nll_loss_of_log_probabilities_is_the_cross_entropy(rng: np.random.Generator) -> None:
    logits, targets, weights = classified((2, 3), "weights", rng)
    np.testing.assert_array_equal(
        nn.nll_loss(mg.log_softmax(mg.tensor(logits)), targets, weights).numpy(),
        nn.cross_entropy(logits, targets, weights).numpy(),
    )


def test_nll_loss_of_the_certain_is_no_negative_zero() -> None:
    loss = nn.nll_loss([[0.0, -np.inf]], [0], reduction="none")
    assert loss.tolist() == [0.0]
    assert not np.signbit(loss.numpy()).any()


def test_nll_loss_refuses_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"nll_loss: scores \(\.\.\., classes\) need targets"):
        nn.nll_loss(np.zeros((2, 3)), [0])
    with pytest.raises(TypeError, match="targets of nll_loss are integers"):
        nn.nll_loss(np.zeros((2, 3)), [0.0, 1.0])


@pytest.mark.host  # on a device they are found in the debug scope alone
@pytest.mark.parametrize("loss", [nn.nll_loss, nn.cross_entropy])
@pytest.mark.parametrize("wrong", [-1, 3])
def test_classes_out_of_range_are_refused(loss: Callable[..., mg.Tensor], wrong: int) -> None:
    told = f"targets of {loss.__name__} lie between 0 and 2; there is a {wrong}"
    with pytest.raises(IndexError, match=told):
        loss(np.zeros((2, 3)), [0, wrong])


# ------------------------------------------------------------------------------ cross_entropy

smoothed = pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])


@pytest.mark.parametrize("shape", SHAPES)
@every_mask
@every_reduction
@smoothed
def test_cross_entropy_is_torchs(
    torch: Any,
    shape: tuple[int, ...],
    mask: str,
    reduction: Reduction,
    smoothing: float,
    rng: np.random.Generator,
) -> None:
    logits, targets, weights = classified(shape, mask, rng)

    def theirs(x: Any) -> Any:
        losses = torch.nn.functional.cross_entropy(
            x.reshape(-1, CLASSES),
            torch.tensor(targets.reshape(-1)),
            reduction="none",
            label_smoothing=smoothing,
        )
        return reduced(torch, losses.reshape(shape), weights, reduction)

    assert_torchs(
        torch,
        lambda x: nn.cross_entropy(
            x, targets, weights, label_smoothing=smoothing, reduction=reduction
        ),
        theirs,
        [logits],
        rng,
    )


@every_mask
@every_reduction
@smoothed
def test_cross_entropy_against_finite_differences(
    mask: str, reduction: Reduction, smoothing: float, rng: np.random.Generator
) -> None:
    logits, targets, weights = classified((2, 3), mask, rng)
    check_gradients(
        lambda x: nn.cross_entropy(
            x, targets, weights, label_smoothing=smoothing, reduction=reduction
        ),
        logits,
    )


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
def test_label_smoothing_is_a_share(smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"label smoothing is in \[0, 1\], not {smoothing}"):
        nn.cross_entropy(np.zeros((1, 2)), [0], label_smoothing=smoothing)


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


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(700, 100), (7, 100, 100), (3, 70_000)])
def test_cross_entropy_of_many_rows(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    logits = mg.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)
    targets = mg.tensor(rng.integers(0, shape[-1], shape[:-1]))
    with mg.Tape() as tape:
        losses = nn.cross_entropy(logits, targets, reduction="none")
    seed = mg.tensor(rng.normal(size=shape[:-1]).astype(dtype))
    gradient = tape.gradient(losses, logits, seed=seed)
    scores = mg.log_softmax(logits.astype("float64"))
    positions = targets.numpy()[..., None]
    picked = np.take_along_axis(scores.numpy(), positions, -1)[..., 0]
    expected = np.exp(scores.numpy())
    np.put_along_axis(expected, positions, np.take_along_axis(expected, positions, -1) - 1.0, -1)
    expected *= seed.numpy()[..., None]
    near = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-13}[dtype]
    assert losses.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(losses.numpy(), -picked, rtol=near, atol=near)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=near, atol=near)


@pytest.mark.host
def test_cross_entropy_makes_no_array_like_the_logits_but_the_gradient() -> None:
    logits = mg.tensor(np.zeros((1000, 1000), "float32"), requires_grad=True)
    targets = mg.tensor(np.zeros(1000, "int64"))
    tracemalloc.start()
    with mg.Tape() as tape:
        loss = nn.cross_entropy(logits, targets)
    _, forward = tracemalloc.get_traced_memory()
    gradient = tape.gradient(loss, logits)
    _, both = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert forward < 0.3 * gradient.nbytes
    assert both < 1.3 * gradient.nbytes


def test_cross_entropy_of_nothing() -> None:
    logits, targets = np.zeros((0, 3)), np.zeros(0, "int64")
    assert nn.cross_entropy(logits, targets, reduction="sum").item() == 0.0
    assert nn.cross_entropy(logits, targets, reduction="none").shape == (0,)
    with pytest.raises(ValueError, match="nothing to average"):
        nn.cross_entropy(logits, targets)


def test_cross_entropy_of_what_is_all_masked() -> None:
    losses = nn.cross_entropy(np.zeros((2, 3)), [0, 1], [False, False], reduction="sum")
    assert losses.item() == 0.0


@pytest.mark.parametrize(
    ("logits", "targets"), [((2, 3), (3,)), ((2, 3), (2, 1)), ((), ()), ((2, 3), ())]
)
def test_cross_entropy_refuses_shapes_that_do_not_fit(
    logits: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"scores \(\.\.\., classes\) need targets"):
        nn.cross_entropy(np.zeros(logits), np.zeros(targets, "int64"))


def test_cross_entropy_refuses_what_else_is_wrong() -> None:
    logits = mg.tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"the mask is \(2, 1\) float64, and the losses"):
        nn.cross_entropy(logits, [0, 1], np.ones((2, 1)))
    with pytest.raises(ValueError, match="not 'average'"):
        nn.cross_entropy(logits, [0, 1], reduction="average")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="targets of cross_entropy are integers, not float32"):
        nn.cross_entropy(logits, [0.0, 1.0])
