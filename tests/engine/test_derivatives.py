"""Functions of functions: gradients, products, Jacobians, Hessians, nested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transfer import on_device

import minigrad as mg
from minigrad import Tape, TapeError, Tensor

X = np.array([0.3, -0.7, 1.1])
A = np.arange(9.0).reshape(3, 3) / 9.0
V = np.array([1.0, 2.0, -0.5])


def smooth(x: Tensor) -> Tensor:
    """Some function of three numbers whose derivatives of all orders differ."""
    return mg.tanh(mg.tensor(A) @ x) * mg.exp(0.5 * x) + x**3


def loss(x: Tensor) -> Tensor:
    return mg.sum(smooth(x))


def differences(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """The Jacobian by central differences."""
    columns = [
        (function(at + 1e-6 * unit) - function(at - 1e-6 * unit)) / 2e-6 for unit in np.eye(at.size)
    ]
    return np.stack(columns, axis=-1)


def value_of(function: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: function(mg.tensor(x)).numpy()


class TestGrad:
    def test_of_arrays_numbers_and_tensors(self) -> None:
        assert mg.grad(lambda x: x**2)(3.0).item() == 6.0
        for x in (X, mg.tensor(X), mg.tensor(X, requires_grad=True)):
            found = mg.grad(loss)(x)
            assert not found.requires_grad
            np.testing.assert_allclose(found.numpy(), differences(value_of(loss), X), rtol=1e-8)

    def test_of_several_arguments_and_containers(self) -> None:
        def model(parameters: dict[str, Any], x: Tensor, *, scale: float) -> Tensor:
            first, second = parameters["layers"]
            return mg.sum(first * x + second * x * x) * scale

        parameters = {"layers": on_device([np.array([1.0]), (np.array([2.0]))])}
        by_parameters, by_x = mg.grad(model, (0, 1))(parameters, np.array([3.0]), scale=10.0)
        assert by_parameters["layers"][0].tolist() == [30.0]
        assert by_parameters["layers"][1].tolist() == [90.0]
        assert by_x.tolist() == [130.0]
        value, last = mg.value_and_grad(model, -1)(parameters, np.array([3.0]), scale=1.0)
        assert value.item() == 21.0
        assert last.tolist() == [13.0]

    def test_nested_to_the_fourth_order(self) -> None:
        function: Callable[..., Any] = lambda x: x**5  # noqa: E731
        for expected in (5 * 16.0, 20 * 8.0, 60 * 4.0, 120 * 2.0):
            function = mg.grad(function)
            assert function(2.0).item() == expected

    def test_an_inner_gradient_does_not_see_the_outer_variable(self) -> None:
        def outer(x: Tensor) -> Tensor:
            inner = mg.grad(lambda y: x * y * y)(3.0)  # 2 x y = 6 x, at y = 3
            return x * inner  # 6 x^2

        assert mg.grad(outer)(2.0).item() == 24.0

    def test_the_same_tensor_as_inner_and_outer_variable(self) -> None:
        # d/dx [x * d/dy (x y^2) at y = x] = d/dx [2 x^3]
        assert mg.grad(lambda x: x * mg.grad(lambda y: x * y**2)(x))(2.0).item() == 24.0

    def test_on_an_open_tape_it_can_be_differentiated_through(self) -> None:
        w = mg.tensor(2.0, requires_grad=True)
        with Tape() as tape:
            slope = mg.grad(lambda x: w * x**3)(3.0)  # 3 w x^2
        assert tape.gradient(slope, w).item() == 27.0

    def test_an_unused_argument_is_an_error_unless_zeros_are_wanted(self) -> None:
        with pytest.raises(TapeError, match=r"does not depend on source\[1\]"):
            mg.grad(lambda x, y: x * 2.0, (0, 1))(1.0, 2.0)
        found = mg.grad(lambda x, y: x * 2.0, (0, 1), unconnected="zero")(1.0, 2.0)
        assert [part.item() for part in found] == [2.0, 0.0]

    @pytest.mark.parametrize(
        ("call", "kind", "message"),
        [
            (lambda: mg.grad(lambda x: x * x)(2), TypeError, "only floats have a derivative"),
            (lambda: mg.grad(lambda x: x * x)(X), ValueError, r"shape \(3,\)"),
            (lambda: mg.grad(lambda x: x.item())(2.0), TypeError, "returned float"),
            (lambda: mg.grad(lambda x: x, 1)(2.0), TypeError, "argument 1 .* but 1 were given"),
            (lambda: mg.grad(lambda x: mg.tensor(1.0))(2.0), TapeError, "nothing was recorded"),
        ],
    )
    def test_misuse(self, call: Callable[[], Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            call()


class TestProducts:
    def test_vjp_and_jvp_against_differences_and_each_other(self) -> None:
        matrix = differences(value_of(smooth), X)
        u = np.array([0.2, -1.0, 3.0])
        value, pull = mg.vjp(smooth, X)
        np.testing.assert_allclose(value.numpy(), value_of(smooth)(X))
        for _ in range(2):
            (pulled,) = pull(u)
            np.testing.assert_allclose(pulled.numpy(), u @ matrix, rtol=1e-7)
        value, pushed = mg.jvp(smooth, X, V)
        np.testing.assert_allclose(pushed.numpy(), matrix @ V, rtol=1e-7)
        np.testing.assert_allclose(u @ pushed.numpy(), pulled.numpy() @ V, rtol=1e-13)

    def test_containers_in_and_out(self) -> None:
        def function(pair: tuple[Tensor, Tensor], z: Tensor) -> dict[str, Tensor]:
            x, y = pair
            return {"product": x * y * z, "sum": x + y, "x": x}

        args = ((2.0, 3.0), 4.0)
        value, pull = mg.vjp(function, *args)
        assert value["product"].item() == 24.0
        (by_x, by_y), by_z = pull({"product": 1.0, "sum": 10.0, "x": 100.0})
        assert [by_x.item(), by_y.item(), by_z.item()] == [122.0, 18.0, 6.0]
        _, pushed = mg.jvp(function, args, ((1.0, 10.0), 100.0))
        assert pushed["product"].item() == 12.0 + 80.0 + 600.0
        assert pushed["sum"].item() == 11.0

    def test_nested_in_each_other(self) -> None:
        def slope(x: Tensor) -> Tensor:
            return mg.jvp(lambda y: y**3, x, mg.tensor(1.0))[1]

        assert mg.grad(slope)(2.0).item() == 12.0
        assert mg.jvp(slope, 2.0, 1.0)[1].item() == 12.0
        assert mg.jvp(lambda x: mg.grad(lambda y: y**3)(x), 2.0, 1.0)[1].item() == 12.0

    def test_of_a_constant_function_they_are_zero(self) -> None:
        value, pushed = mg.jvp(lambda x: mg.tensor([1.0, 2.0]), 3.0, 1.0)
        assert value.tolist() == [1.0, 2.0]
        assert pushed.tolist() == [0.0, 0.0]
        _, pull = mg.vjp(lambda x: mg.tensor(1.0), 3.0)
        assert pull(1.0)[0].item() == 0.0

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"\[\(3,\)\], and those of the vector \[\(2,\)\]"):
            mg.jvp(smooth, X, np.ones(2))
        with pytest.raises(ValueError, match="the value has 1 tensors and the vector 2"):
            mg.vjp(smooth, X)[1]((X, X))


class TestSecondOrder:
    def test_jacobian(self) -> None:
        np.testing.assert_allclose(
            mg.jacobian(smooth)(X).numpy(), differences(value_of(smooth), X), rtol=1e-7
        )
        found = mg.jacobian(lambda p: p["a"] * p["b"].sum())({"a": X, "b": np.ones((2, 2))})
        assert found["a"].shape == (3, 3)
        assert found["b"].shape == (3, 2, 2)

    def test_hessian_and_its_products(self) -> None:
        found = mg.hessian(loss)(X).numpy()
        expected = differences(value_of(mg.grad(loss)), X)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found, found.T, rtol=1e-12)
        np.testing.assert_allclose(mg.hvp(loss, X, V).numpy(), found @ V, rtol=1e-12)

    def test_hessian_of_a_linear_function_is_zero(self) -> None:
        assert not mg.hessian(lambda x: x.sum())(X).numpy().any()
        assert not mg.hvp(lambda x: x.sum(), X, V).numpy().any()

    def test_third_derivatives_agree_with_torch(self) -> None:
        torch = pytest.importorskip("torch")
        x = torch.tensor(X, requires_grad=True)
        value = (torch.tanh(torch.tensor(A) @ x) * torch.exp(0.5 * x) + x**3).sum()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(slope @ torch.tensor(V), x, create_graph=True)
        (third,) = torch.autograd.grad(second @ torch.tensor(V), x)

        def twice(y: Tensor) -> Tensor:
            return mg.sum(mg.hvp(loss, y, V) * mg.tensor(V))

        np.testing.assert_allclose(mg.hvp(loss, X, V).numpy(), second.detach(), rtol=1e-10)
        np.testing.assert_allclose(mg.grad(twice)(X).numpy(), third, rtol=1e-10)


def test_no_cycle_and_no_open_tape_remains(no_collector: None) -> None:
    import gc

    mg.hessian(loss)(X)
    gc.collect()
    mg.hvp(loss, X, V)
    mg.jvp(smooth, X, V)
    assert gc.collect() == 0
