"""What the cells have in common: sizes, parameters, states, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import sqrt
from typing import Any, ClassVar

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.states import check_state, map_state

#: What a cell carries from one step to the next: a tensor, or tensors in nested containers.
State = Any


class Cell(nn.Module):
    """One step of a recurrence:  ``y, state = cell(x, state)``.

    A subclass writes the step in two parts, :meth:`project` and :meth:`step`; if its
    parameters or its state are others, :meth:`parameter_shapes` and :attr:`state_sizes` too.

    Args:
        input_size: the number of features of x.
        hidden_size: the number of features of h.
        bias: whether there are biases.
        output_size: the number of features of y; hidden_size by default.
        dtype: that of the parameters; float32 by default.
        device: that of the parameters.
        rng: generator or seed of the initial values, see :meth:`reset_parameters`.

    Attributes:
        weight_ih: (gates * hidden_size, input_size).
        weight_hh: (gates * hidden_size, output_size), where output_size is that of h.
        bias_ih, bias_hh: (gates * hidden_size,), or ``None``.
        recurrent_mask: what multiplies h where it enters a product with weights, and only
            there; of the shape of h, or ``None``. Give it by ``cell.using(recurrent_mask=m)``.
            One mask for all steps is the recurrent dropout of Gal and Ghahramani, A
            theoretically grounded application of dropout in recurrent neural networks, 2016.

    Raises ``ValueError`` if a size is below 1.
    """

    #: The blocks of ``hidden_size`` rows that the weights have, in their order.
    gates: tuple[str, ...] = ("h",)

    #: The gate whose bias says how long the cell remembers, and the sign that makes it
    #: remember longer; ``None`` for a cell without such a gate.
    forget_gate: tuple[str, int] | None = None

    #: Whether h enters a recurrent product, for ``recurrent_mask`` to act on; in some cells the
    #: state is only carried on, like the c of an LSTM.
    recurrent_product: ClassVar[bool] = True

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        output_size: int | None = None,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        if input_size < 1 or hidden_size < 1:
            raise ValueError(
                f"input_size and hidden_size are at least 1, not {input_size} and {hidden_size}"
            )
        if output_size is not None and output_size < 1:
            raise ValueError(f"output_size is at least 1, not {output_size}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size if output_size is None else output_size
        #: The ending of the parameters' names, by which a layer tells its cells apart.
        self.suffix = ""
        for name, shape in self.parameter_shapes(bias).items():
            empty = None if shape is None else nn.init.zeros(shape, dtype=dtype, device=device)
            setattr(self, name, None if empty is None else nn.Parameter(empty))
        self.recurrent_mask: Tensor | None = None
        self.reset_parameters(rng)

    def parameter_shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """The parameters' names and shapes; ``None`` for one that the cell does without."""
        rows = len(self.gates) * self.hidden_size
        return {
            "weight_ih": (rows, self.input_size),
            "weight_hh": (rows, self.output_size),
            "bias_ih": (rows,) if bias else None,
            "bias_hh": (rows,) if bias else None,
        }

    def reset_parameters(self, rng: Any = None) -> None:
        """Draw the initial values anew: U(-k, k) with k = 1 / sqrt(hidden_size), as PyTorch.

        The gains of layer normalisation become 1 again, and what it adds 0.
        """
        rng = nn.init.generator(rng)
        bound = 1.0 / sqrt(self.hidden_size)
        for value in vars(self).values():
            if isinstance(value, nn.Parameter):
                fill(value, nn.init.uniform, -bound, bound, rng=rng)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                fill(module.weight, nn.init.ones)
                fill(module.bias, nn.init.zeros)

    # ---------------------------------------------------------------- state

    @property
    def state_sizes(self) -> Any:
        """The number of features of every part of the state, nested as the state is."""
        return self.hidden_size

    def initial_state(self, batch_size: int | None = None) -> State:
        """The state before the first step: zeros, without a batch for ``None``."""
        like = next(value for value in vars(self).values() if isinstance(value, Tensor))
        batch = () if batch_size is None else (batch_size,)
        return map_state(
            lambda size: nn.init.zeros((*batch, size), dtype=like.dtype, device=like.device),
            self.state_sizes,
        )

    def checked_state(self, state: State, *batch: int) -> State:
        """``state``, or the initial one for ``None``.

        ``batch`` is the number of sequences, or nothing for a single one. Raises ``ValueError``
        if the state is not of the cell's shape.
        """
        if state is None:
            return self.initial_state(*batch)
        check_state(type(self).__name__, state, self.state_sizes, *batch)
        return state

    # ---------------------------------------------------------------- the step

    def project(self, xs: Tensor) -> Tensor:
        """What a step computes from its input alone, (..., input_size) -> (..., features)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method project")

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step from the projected input, (batch, features), and the state."""
        raise NotImplementedError(f"{type(self).__name__} needs a method step")

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One step from x, (batch, input_size), and the state, zeros by default.

        x may be (input_size,), too; y and the state then are without a batch as well.

        Raises ``ValueError`` if x or the state is not of the shape that the cell expects.
        """
        if not isinstance(x, Tensor):
            x = mg.asarray(x)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{type(self).__name__} expects x (batch, {self.input_size}), not {x.shape}"
            )
        return self.step(self.project(x), self.checked_state(state, *x.shape[:-1]))

    def masked(self, h: Tensor) -> Tensor:
        """h as it enters the products with weights: times ``recurrent_mask``, if there is one."""
        return h if self.recurrent_mask is None else h * self.recurrent_mask

    @contextmanager
    def using(self, **values: Any) -> Iterator[None]:
        """Let the named attributes have these values inside the block, and the old ones after.

        The weights are read at every step, so a sequence that runs inside the block runs with
        what is given here: a tensor computed from a weight, for instance, through which the
        gradient reaches the weight.

        Raises ``AttributeError`` if the cell has no such attribute, and ``ValueError`` for a
        ``recurrent_mask`` that would have nothing to act on.

        >>> import minigrad as mg, minigrad_rnn as rnn
        >>> cell = rnn.RNNCell(1, 2, rng=0)
        >>> with cell.using(weight_hh=0.5 * cell.weight_hh):
        ...     y, h = cell(mg.tensor([[1.0]]))
        """
        if values.get("recurrent_mask") is not None and not self.recurrent_product:
            raise ValueError(
                f"{type(self).__name__} has no recurrent product for recurrent_mask to act on: its "
                "state is carried on, like the c of an LSTM; mask its input instead"
            )
        before = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    # ---------------------------------------------------------------- as a module

    def members(self) -> Iterator[tuple[str, Any]]:
        """The attributes; parameters, and modules that hold some, with the suffix."""
        for name, value in super().members():
            own = isinstance(value, nn.Parameter | nn.Module)
            yield name + self.suffix if own else name, value

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}"


def assign(parameter: Tensor, values: Any) -> None:
    """Let the parameter hold these values from now on, in its dtype and on its device."""
    parameter.rebind(mg.asarray(values, parameter.dtype, device=parameter.device))


def fill(
    parameter: Tensor | None, initialiser: Callable[..., Tensor], *settings: Any, **named: Any
) -> None:
    """Let the parameter, if there is one, hold what the initialiser makes of its shape."""
    if parameter is not None:
        made = initialiser(parameter.shape, *settings, dtype=parameter.dtype, **named)
        assign(parameter, made)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, norm: nn.Module | None = None) -> Tensor:
    """W x + b  of every row of x,  or  norm(W x) + b;  b may be missing."""
    if norm is not None:
        product = norm(x @ weight.T)
        return product if bias is None else product + bias
    return x @ weight.T if bias is None else mg.linear(x, weight, bias)


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b, of which one or both may be missing."""
    if a is None or b is None:
        return a if b is None else b
    return a + b
