"""Tensors: how they are made, read, printed, compared and copied, and what they refuse."""

from __future__ import annotations

import array
import copy
import operator
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from transfer import ARRAY, on_device, to_host

import minigrad as mg
from minigrad import nn
from minigrad.arrays import default_device, owner
from minigrad.slots import CONSTANT

FLOATS = ("float16", "float32", "float64")
OTHERS = ("bool", "int8", "int32", "int64", "uint8")


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    mg.set_default_dtype("float64")
    yield
    mg.set_default_dtype("float32")


def leaf(data: Any = (1.0, 2.0), dtype: Any = None) -> mg.Tensor:
    return mg.tensor(data, dtype, requires_grad=True)


# ------------------------------------------------------------------------------ making


def test_tensor_copies_an_array() -> None:
    data = np.zeros(3)
    made = mg.tensor(data)
    data[0] = 7.0
    np.testing.assert_array_equal(made.numpy(), np.zeros(3))


def test_tensor_copies_a_tensor() -> None:
    first = mg.tensor([1.0, 2.0])
    assert owner(mg.tensor(first).array) is not owner(first.array)


def test_tensor_copies_whatever_lends_its_memory() -> None:
    data = array.array("f", [1.0, 2.0])
    made = mg.tensor(data)
    data[0] = 7.0
    assert made.tolist() == [1.0, 2.0]


def test_asarray_shares_an_array_and_a_tensor() -> None:
    data = on_device(np.zeros(3))
    made = mg.asarray(data)
    assert made.array is data
    assert mg.asarray(made).array is data


def test_asarray_copies_for_another_dtype() -> None:
    data = on_device(np.zeros(3))
    made = mg.asarray(data, "float32")
    assert made.dtype == "float32"
    assert owner(made.array) is not owner(data)


@pytest.mark.parametrize("data", [1.5, [1.5], ((1.5, 2),), []])
def test_python_floats_are_float32(data: Any) -> None:
    assert mg.tensor(data).dtype == "float32"


@pytest.mark.usefixtures("float64_by_default")
def test_the_default_dtype_is_that_of_python_floats_alone() -> None:
    assert mg.tensor([1.5]).dtype == "float64"
    assert nn.Linear(2, 2).weight.dtype == "float64"
    assert mg.tensor(np.zeros(2, "float16")).dtype == "float16"
    assert mg.tensor(1).dtype == np.asarray(1).dtype


@pytest.mark.parametrize(
    "dtype",
    [
        "int32",
        "bool",
        "complex64",
        pytest.param(
            "longdouble",
            marks=pytest.mark.skipif(
                np.dtype("longdouble").itemsize == 8, reason="long double is float64 here"
            ),
        ),
    ],
)
def test_only_a_float_dtype_can_be_the_default(dtype: str) -> None:
    try:
        with pytest.raises(TypeError, match=np.dtype(dtype).name):
            mg.set_default_dtype(dtype)
        assert mg.tensor(0.5).dtype == "float32"
    finally:
        mg.set_default_dtype("float32")


@pytest.mark.parametrize("dtype", FLOATS + OTHERS)
def test_arrays_and_numpy_scalars_keep_their_dtype(dtype: str) -> None:
    data = np.ones((2, 1), dtype)
    for make in (mg.tensor, mg.asarray):
        assert make(data).dtype == dtype
        assert make(data[0, 0]).dtype == dtype
        assert type(make(data[0, 0]).array) is ARRAY


def test_python_integers_and_booleans_stay_what_they_are() -> None:
    assert mg.tensor([1, 2]).dtype == np.asarray([1, 2]).dtype
    assert mg.tensor([True, False]).dtype == "bool"


def test_a_dtype_can_be_asked_for() -> None:
    assert mg.tensor([1, 2], "float64").dtype == "float64"
    assert mg.tensor([1.7], dtype=np.int64).tolist() == [1]


def test_tensors_in_a_list_give_their_values() -> None:
    losses = [mg.tensor(1.5), leaf(2.5).detach()]
    made = mg.tensor([losses, losses])
    assert made.tolist() == [[1.5, 2.5], [1.5, 2.5]]
    assert made.slot == CONSTANT


def test_a_gradient_is_never_dropped_by_making_a_new_tensor() -> None:
    x = leaf(2.5)
    with mg.Tape():
        y = x * 2.0
        for data in ([mg.tensor(1.0), x], [y, y], [[y]], y):
            for make in (mg.tensor, mg.asarray):
                with pytest.raises(mg.TapeError, match=r"silently drop it: write mg.stack"):
                    make(data)
        assert mg.mean([x, y]).item() == 3.75
        assert mg.tensor(x).tolist() == 2.5


def test_lists_of_tensors_are_stacked_with_their_gradients() -> None:
    w = leaf(2.0)
    with mg.Tape() as tape:
        loss = mg.mean([w**2, w**3]) + mg.tanh([w, w]).sum()
    slope = 2.0 + 6.0 + 2.0 * (1.0 - np.tanh(2.0) ** 2)
    assert tape.gradient(loss, w).item() == pytest.approx(slope)


def test_requires_grad_makes_a_leaf_and_each_leaf_is_another() -> None:
    first, second = leaf(), leaf()
    assert first.is_leaf
    assert first.requires_grad
    assert first.slot != second.slot
    assert not mg.tensor(first).requires_grad


@pytest.mark.parametrize("dtype", OTHERS)
def test_only_floats_can_require_a_gradient(dtype: str) -> None:
    with pytest.raises(TypeError, match=rf"{dtype}.*write 1\.0 instead of 1"):
        mg.tensor(np.ones(2, dtype), requires_grad=True)


@pytest.mark.parametrize("data", [1j, [1.0, 2j], np.zeros(2, "complex64")])
def test_complex_numbers_are_refused(data: Any) -> None:
    for make in (mg.tensor, mg.asarray):
        with pytest.raises(TypeError, match=r"complex.*\.real and \.imag"):
            make(data)


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "datetime64[s]"])
def test_a_dtype_that_is_no_real_number_is_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match="real numbers or booleans"):
        mg.tensor([1.0, 2.0], dtype)
    with pytest.raises(TypeError, match="real numbers or booleans"):
        mg.tensor([1.0, 2.0]).astype(dtype)


@pytest.mark.parametrize("data", [None, "1.0", ["a"], {"a": 1.0}, 2**70])
def test_what_is_no_number_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="real numbers or booleans"):
        mg.tensor(data)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="ragged"):
        mg.tensor([[1.0], [1.0, 2.0]])


# ------------------------------------------------------------------------------ devices


def test_to_where_it_is_shares_and_gives_a_constant_or_a_new_leaf() -> None:
    constant, own = mg.tensor([1.0]), leaf([1.0])
    assert constant.device == default_device()
    assert constant.to(constant.device).array is constant.array
    assert not constant.to(constant.device).requires_grad
    moved = own.to(own.device)
    assert moved.is_leaf
    assert moved.slot != own.slot


def test_a_computed_tensor_does_not_move() -> None:
    x = leaf()
    with mg.Tape():
        y = x * 2.0
        with pytest.raises(mg.TapeError, match="move the leaves"):
            y.to("cpu")
        assert y.detach().to("cpu").tolist() == [2.0, 4.0]


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:x", "cuda:", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"unknown device {device!r}"):
        mg.tensor([1.0]).to(device)
    with pytest.raises(ValueError, match=f"unknown device {device!r}"):
        mg.tensor([1.0], device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_cupy_the_extra_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"minigrad\[cuda13\]"):
        mg.tensor([1.0]).to(device)
    with pytest.raises(ImportError, match=r"minigrad\[cuda13\]"):
        mg.tensor([1.0], device=device)


# ------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_properties_are_those_of_the_array(shape: tuple[int, ...]) -> None:
    data = np.zeros(shape)
    made = mg.asarray(data)
    for name in ("shape", "ndim", "size", "dtype", "nbytes"):
        assert getattr(made, name) == getattr(data, name)
    assert made.device == default_device()


def test_requires_grad_of_a_computed_tensor_ends_with_its_place_on_the_tape() -> None:
    x = leaf()
    with mg.Tape() as tape:
        y = x * 2.0
        assert y.requires_grad
        assert not y.is_leaf
        tape.cut()
        assert not y.requires_grad
        z = x * 2.0
    assert z.requires_grad
    del tape
    assert not z.requires_grad
    assert x.requires_grad


@pytest.mark.host
def test_numpy_shares_memory() -> None:
    own = leaf()
    assert own.numpy() is own.array


def test_detach_shares_memory() -> None:
    own = leaf()
    constant = own.detach()
    assert constant.array is own.array
    assert type(constant) is mg.Tensor
    assert not constant.requires_grad


def test_tolist() -> None:
    assert mg.tensor([[1.0, 2.0], [3.0, 4.0]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert mg.tensor(2).tolist() == 2


# ------------------------------------------------------------------------------ one number


@pytest.mark.parametrize("value", [2.5, 3, True])
def test_item_is_a_python_number(value: float) -> None:
    for data in (value, [value], [[value]]):
        item = mg.tensor(data).item()
        assert type(item) is type(value)
        assert item == value


def test_conversions_of_one_element() -> None:
    assert float(mg.tensor([2.5])) == 2.5
    assert int(mg.tensor(2.5)) == 2
    assert bool(mg.tensor(0.5)) is True
    assert bool(mg.tensor([[0.0]])) is False
    assert list(range(mg.tensor(3))) == [0, 1, 2]
    assert "abc"[mg.tensor([1])] == "b"


@pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
def test_several_elements_are_no_single_number(shape: tuple[int, ...]) -> None:
    several = mg.tensor(np.ones(shape, "int64"))
    for convert in (mg.Tensor.item, float, int, operator.index):
        with pytest.raises(ValueError, match="exactly one element"):
            convert(several)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(several)


@pytest.mark.parametrize("value", [2.0, True])
def test_only_an_integer_is_an_index(value: float) -> None:
    with pytest.raises(TypeError, match="only an integer tensor"):
        operator.index(mg.tensor(value))


# ------------------------------------------------------------------------------ printing


def shown(made: mg.Tensor) -> str:
    """Its ``repr`` without the device, which is that of the run."""
    return repr(made).replace(f", device={made.device!r}", "")


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (mg.tensor(1.5), "tensor(1.5)"),
        (mg.tensor([1.0, 2.0]), "tensor([1., 2.])"),
        (mg.tensor([[1.0], [2.0]]), "tensor([[1.],\n        [2.]])"),
        (mg.tensor(np.array([1, 2], "int64")), "tensor([1, 2])"),
        (mg.tensor(np.array([1, 2], "int32")), "tensor([1, 2], dtype=int32)"),
        (mg.tensor([True, False]), "tensor([ True, False])"),
        (mg.tensor([1.0], "float64"), "tensor([1.], dtype=float64)"),
        (mg.tensor([]), "tensor([])"),
        (mg.tensor(np.zeros((0, 3), "float32")), "tensor([], shape=(0, 3))"),
        (mg.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (nn.Parameter(mg.tensor([1.0])), "Parameter([1.])"),
        (nn.Parameter(np.ones((1, 1))), "Parameter([[1.]], dtype=float64)"),
    ],
)
def test_repr(made: mg.Tensor, text: str) -> None:
    assert shown(made) == text
    assert str(made) == f"{made}" == repr(made)


def test_repr_of_a_computed_tensor_shows_its_slot_while_it_has_one() -> None:
    x = leaf(3.0)
    with mg.Tape() as tape:
        square = x * x
        assert shown(square * 2.0) == "tensor(18., slot=1)"
        tape.cut()
        assert shown(square) == "tensor(9.)"


def test_a_large_tensor_is_abbreviated() -> None:
    assert len(repr(mg.tensor(np.zeros(100_000)))) < 100


def test_format_of_one_element() -> None:
    assert f"{mg.tensor(2.0):.3f}" == "2.000"
    assert f"{mg.tensor([7]):04d}" == "0007"
    with pytest.raises(ValueError, match="exactly one element"):
        format(mg.tensor([1.0, 2.0]), ".3f")


# ------------------------------------------------------------------------------ comparison

COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)


@pytest.mark.parametrize("compare", COMPARISONS)
def test_comparisons_are_those_of_the_arrays_and_constants(
    compare: Callable[[Any, Any], Any],
) -> None:
    a, b = np.array([[1.0], [2.0]]), np.array([1.0, 3.0])
    left, right = leaf(a), leaf(b)
    with mg.Tape() as tape:
        for ours, expected in (
            (compare(left, right), compare(a, b)),
            (compare(left, on_device(b)), compare(a, b)),
            (compare(on_device(a), right), compare(a, b)),
            (compare(left, 1.0), compare(a, 1.0)),
            (compare(1.0, right), compare(1.0, b)),
            (compare(left, [1.0, 3.0]), compare(a, b)),
        ):
            assert isinstance(ours, mg.Tensor)
            assert not ours.requires_grad
            np.testing.assert_array_equal(ours.numpy(), expected)
    assert len(tape) == 0


def test_nothing_equals_none() -> None:
    assert (mg.tensor([1.0, 2.0]) == None).tolist() == [False, False]  # noqa: E711


def test_hashing_is_by_identity() -> None:
    first, second = mg.tensor([1.0]), mg.tensor([1.0])
    assert hash(first) != hash(second)
    names = {first: "first", second: "second"}
    assert names[first] == "first"
    assert names[second] == "second"
    assert len({first, second, first}) == 2


def test_contains() -> None:
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert 3.0 in x
    assert 5.0 not in x
    assert mg.tensor(4.0) in x
    assert np.float64(5.0) not in x
    assert None not in x
    assert 1.0 not in mg.tensor([])


# ------------------------------------------------------------------------------ sequences


def test_len_and_iteration() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    with mg.Tape() as tape:
        first, second = x
        total = (first * second).sum()
    np.testing.assert_array_equal(tape.gradient(total, x).numpy(), [[3.0, 4.0], [1.0, 2.0]])
    assert list(mg.tensor(np.zeros((0, 2)))) == []


def test_no_dimensions_no_sequence() -> None:
    with pytest.raises(TypeError, match="no dimensions"):
        len(mg.tensor(1.0))
    with pytest.raises(TypeError, match="no dimensions"):
        iter(mg.tensor(1.0))


@pytest.mark.parametrize(
    "index",
    [
        1,
        -1,
        (1, 2),
        slice(1, None),
        (slice(None), slice(None, None, -2)),
        (..., 0),
        (None, 1),
        [0, 0, 1],
        ([0, 1], [2, 0]),
        np.array([[1, 0], [0, 1]]),
        np.array([True, False]),
        (slice(None), np.array([True, False, True])),
        [],
    ],
    ids=repr,
)
def test_indexing_is_numpys(index: Any) -> None:
    data = np.arange(24.0).reshape(2, 3, 4)
    found = mg.tensor(data)[on_device(index)]
    np.testing.assert_array_equal(found.numpy(), data[index])
    assert found.dtype == data.dtype


def test_tensors_are_indices() -> None:
    data = np.arange(6.0).reshape(2, 3)
    x = mg.tensor(data)
    np.testing.assert_array_equal(x[mg.tensor([1, 0, 1])].numpy(), data[[1, 0, 1]])
    np.testing.assert_array_equal(x[x > 2.0].numpy(), data[data > 2.0])
    np.testing.assert_array_equal(x[:, mg.tensor(1)].numpy(), data[:, 1])


@pytest.mark.parametrize(
    "index",
    [
        *(2, -3, (0, 3), mg.tensor([0.0]), 1.0, (0, 0, 0)),
        pytest.param([0, 2], marks=pytest.mark.host),  # on a device in the debug scope alone
    ],
)
def test_what_is_no_index(index: Any) -> None:
    with pytest.raises(IndexError):
        mg.tensor(np.zeros((2, 3)))[index]


def test_a_tensor_is_never_written_to() -> None:
    x = mg.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"write x = mg\.set_at"):
        x[0] = 3.0
    before = x
    x += 1.0
    assert before.tolist() == [1.0, 2.0]
    assert x.tolist() == [2.0, 3.0]


# ------------------------------------------------------------------------------ methods


@pytest.mark.parametrize(
    "call",
    [
        lambda a: a.sum(),
        lambda a: a.sum(axis=1, keepdims=True),
        lambda a: a.mean(axis=(0, 2)),
        lambda a: a.max(0),
        lambda a: a.min(-1),
        lambda a: a.argmax(1),
        lambda a: (a > 3.0).all(),
        lambda a: (a > 3.0).any(),
        lambda a: a.reshape(4, -1),
        lambda a: a.reshape((4, 6)),
        lambda a: a.reshape(-1),
        lambda a: a.transpose(),
        lambda a: a.transpose(1, 2, 0),
        lambda a: a.transpose((1, 2, 0)),
        lambda a: a.swapaxes(0, -1),
        lambda a: a.T,
        lambda a: a.astype("float32"),
        lambda a: a.astype(np.int64),
        lambda a: np.tanh(a),
        lambda a: np.absolute(a),
        lambda a: np.concatenate([a, a], axis=1),
    ],
)
def test_methods_and_numpys_functions(call: Callable[[Any], Any]) -> None:
    data = np.random.default_rng(0).normal(2.0, 2.0, (2, 3, 4))
    ours, expected = call(mg.tensor(data)), call(data)
    assert isinstance(ours, mg.Tensor)
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours.numpy(), expected)


def test_numpys_functions_without_a_rule_are_refused() -> None:
    x = mg.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"np\.cbrt\(t\.numpy\(\)\)"):
        np.cbrt(x)
    with pytest.raises(TypeError, match=r"np\.add\.reduce"):
        np.add.reduce(x)
    with pytest.raises(TypeError, match="takes no out="):
        np.exp(x, out=np.zeros(2))


@pytest.mark.host
def test_a_constant_becomes_an_array() -> None:
    x = mg.tensor([1.0, 2.0])
    assert np.asarray(x) is x.array
    assert not np.shares_memory(np.array(x), x.array)
    assert np.asarray(x, dtype="float64").dtype == "float64"


@pytest.mark.host
def test_an_array_without_a_copy_is_refused_where_it_needs_one() -> None:
    with pytest.raises(ValueError, match="copy"):
        np.asarray(mg.tensor([1.0, 2.0]), dtype="float64", copy=False)


def test_a_gradient_is_not_dropped_by_becoming_an_array() -> None:
    x = leaf()
    with pytest.raises(TypeError, match=r"t\.numpy\(\)"):
        np.asarray(x)
    with mg.Tape():
        y = x * 2.0
        with pytest.raises(TypeError, match="silently drop its gradient"):
            np.asarray(y)


# ------------------------------------------------------------------------------ copies

COPIES: tuple[Callable[[Any], Any], ...] = (
    copy.copy,
    copy.deepcopy,
    *(
        lambda t, protocol=protocol: pickle.loads(pickle.dumps(t, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    ),
)


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("dtype", FLOATS + OTHERS)
def test_a_copied_constant(duplicate: Callable[[Any], Any], dtype: str) -> None:
    original = mg.tensor(np.array([[1, 0]], dtype))
    made = duplicate(original)
    np.testing.assert_array_equal(made.numpy(), original.numpy())
    assert made.dtype == dtype
    assert made.slot == CONSTANT
    assert owner(made.array) is not owner(original.array)


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("kind", [leaf, nn.Parameter])
def test_a_copied_leaf_is_another_leaf(
    duplicate: Callable[[Any], Any], kind: Callable[[Any], mg.Tensor]
) -> None:
    original = kind([1.0, 2.0])
    original.grad = mg.tensor([7.0, 7.0])
    made = duplicate(original)
    original.grad = None
    assert type(made) is type(original)
    assert made.is_leaf
    assert made.slot != original.slot
    assert made.grad is None
    with mg.Tape() as tape:
        loss = (original * made * made).sum()
    tape.backward(loss)
    for own, expected in ((made, [2.0, 8.0]), (original, [1.0, 4.0])):
        assert own.grad is not None
        assert own.grad.tolist() == expected


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copied_result_is_a_constant(duplicate: Callable[[Any], Any]) -> None:
    x = leaf()
    with mg.Tape() as tape:
        y = (x * 2.0).sum()
        made = duplicate(y)
        assert made.slot == CONSTANT
        assert not made.requires_grad
        assert made.item() == 6.0
        with pytest.raises(mg.TapeError, match="nothing was recorded"):
            made.backward()
        assert y.requires_grad
    np.testing.assert_array_equal(tape.gradient(y, x).numpy(), [2.0, 2.0])


def test_no_history_travels_in_a_pickle() -> None:
    x = leaf(np.ones(1000))
    with mg.Tape():
        y = x
        for _ in range(20):
            y = mg.tanh(y)
        assert len(pickle.dumps(y)) == len(pickle.dumps(y.detach()))


def test_a_leaf_that_occurs_twice_is_copied_once() -> None:
    x = leaf()
    for duplicate in COPIES[1:]:
        first, second = duplicate([x, x])
        assert first is second


# ------------------------------------------------------------------------------ .grad


def test_grad_is_none_until_it_is_computed_and_accumulates() -> None:
    x = leaf()
    assert x.grad is None
    for times in (1.0, 2.0):
        with mg.Tape() as tape:
            loss = (3.0 * x).sum()
        tape.backward(loss)
        assert x.grad is not None
        assert type(x.grad) is mg.Tensor
        assert x.grad.slot == CONSTANT
        np.testing.assert_array_equal(x.grad.numpy(), [3.0 * times, 3.0 * times])
    x.grad = None
    assert x.grad is None


def test_grad_can_be_set_and_is_kept_as_a_constant() -> None:
    x = leaf()
    x.grad = leaf([5.0, 6.0])
    assert x.grad is not None
    assert x.grad.slot == CONSTANT
    assert x.grad.tolist() == [5.0, 6.0]


def test_a_gradient_that_does_not_fit_is_refused() -> None:
    x = leaf()
    with pytest.raises(TypeError, match="a gradient is a Tensor or None, not ndarray"):
        x.grad = np.zeros(2, "float32")  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"\(2,\) float32.*\(3,\) float32"):
        x.grad = mg.tensor([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"\(2,\) float32.*\(2,\) float64"):
        x.grad = mg.tensor([1.0, 2.0], "float64")
    assert x.grad is None


def test_only_a_leaf_has_a_gradient() -> None:
    x = leaf()
    with mg.Tape():
        computed = x * 2.0
    for tensor in (computed, mg.tensor([1.0])):
        with pytest.raises(AttributeError, match=r"tape\.gradient\(loss, tensor\)"):
            _ = tensor.grad
        with pytest.raises(AttributeError, match="only a leaf"):
            tensor.grad = None


# ------------------------------------------------------------------------------ rebind


def test_rebind_shares_the_new_array_and_leaves_the_old_one_alone() -> None:
    old, new = on_device([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    x = mg.asarray(old, requires_grad=True)
    slot = x.slot
    x.rebind(new)
    assert x.array is new
    assert x.slot == slot
    np.testing.assert_array_equal(to_host(old), [1.0, 2.0])
    x.rebind(mg.tensor(old))
    assert x.tolist() == [1.0, 2.0]


def test_a_gradient_is_that_of_the_values_before_rebind() -> None:
    x = leaf([1.0, 2.0])
    with mg.Tape() as tape:
        loss = (x * x).sum()
    x.rebind(mg.tensor([10.0, 20.0]))
    np.testing.assert_array_equal(tape.gradient(loss, x).numpy(), [2.0, 4.0])


@pytest.mark.parametrize(
    "value",
    [
        2.0,
        on_device(np.array(2.0, "float32")),
        pytest.param(np.float32(2.0), marks=pytest.mark.host),
    ],
)
def test_rebind_of_a_leaf_of_no_dimensions(value: Any) -> None:
    x = leaf(1.0)
    x.rebind(value)
    assert x.item() == 2.0
    assert type(x.array) is ARRAY


def test_a_leaf_keeps_its_shape_and_dtype() -> None:
    x = leaf([1.0, 2.0])
    for other in (np.zeros(3, "float32"), np.zeros((1, 2), "float32"), np.zeros(2)):
        with pytest.raises(ValueError, match=r"keeps its shape, dtype and device.*\(2,\) float32"):
            x.rebind(on_device(other))
    assert x.tolist() == [1.0, 2.0]


def test_only_a_leaf_can_be_rebound() -> None:
    x = leaf()
    with mg.Tape():
        computed = x * 2.0
    for tensor in (computed, mg.tensor([1.0, 2.0])):
        with pytest.raises(mg.TapeError, match="only a leaf"):
            tensor.rebind(np.zeros(2, "float32"))


class TestDLPack:
    def test_to_and_from_numpy_without_a_copy(self) -> None:
        array = np.arange(3.0)
        made = mg.from_dlpack(array)
        assert np.shares_memory(made.array, array)
        assert np.shares_memory(np.from_dlpack(made), array)

    def test_to_and_from_torch_without_a_copy(self) -> None:
        torch = pytest.importorskip("torch")
        source = torch.arange(3.0)
        made = mg.from_dlpack(source)
        assert made.dtype == "float32"
        assert torch.from_dlpack(made).data_ptr() == source.data_ptr()

    def test_a_gradient_is_not_dropped(self) -> None:
        with pytest.raises(TypeError, match=r"silently drop its gradient.*t\.detach\(\)"):
            np.from_dlpack(leaf(1.0))

    def test_other_devices_are_refused(self) -> None:
        class Elsewhere:
            def __dlpack_device__(self) -> tuple[int, int]:
                return 8, 0

        with pytest.raises(TypeError, match="DLPack device 8"):
            mg.from_dlpack(Elsewhere())


def test_an_index_is_that_of_the_time_of_reading() -> None:
    x, index = mg.tensor([1.0, 2.0, 3.0], requires_grad=True), on_device(np.array([0, 1]))
    with mg.Tape() as tape:
        y = mg.sum(x[index] * mg.tensor([10.0, 20.0]))
        index[:] = 2
    assert tape.gradient(y, x).tolist() == [10.0, 20.0, 0.0]


def test_a_seed_is_that_of_the_time_of_the_gradient() -> None:
    x, seed = mg.tensor([1.0, 2.0], requires_grad=True), np.ones(2, "float32")
    with mg.Tape() as tape:
        y = x + 0.0
    tape.backward(y, seed)
    seed[:] = 99.0
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]
