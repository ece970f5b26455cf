"""Truncated backpropagation through time, by cutting the tape."""

from __future__ import annotations

from collections import deque
from functools import reduce
from math import inf
from numbers import Integral, Real
from operator import add
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, overload

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.cells import State
from minigrad_rnn.states import map_state


class _Call(NamedTuple):
    """What one call of :meth:`TBPTT.step` has handed over."""

    #: The tape's position behind it.
    end: int
    steps: int
    #: By name; a loss without one has the name "".
    losses: dict[str, Tensor]
    weight: float | Tensor
    #: The state that was watched before it.
    watched: State


class TBPTT:
    """Every ``k1`` time steps, propagate gradients back through the last ``k2`` steps.

    Use it as the block in which the recurrence runs; it records on a tape of its own. After
    every time step hand it the loss of that step. Every ``k1`` steps it adds the gradient of
    the window to the parameters' ``.grad`` and returns the window's loss, which is the
    moment to clip and to update:

        with rnn.TBPTT(k1=16, k2=64) as truncated:
            for x, target in stream:
                y, state = cell(x, state)
                window_loss = truncated.step(nn.cross_entropy(y, target))
                if window_loss is not None:
                    rnn.clip_grad_norm_(parameters, 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
            if truncated.flush() is not None:  # the steps since the last update
                ...

    Everything that a step uses must be computed between two calls of :meth:`step`, from
    parameters and data: what was computed before the loop (all embeddings of the stream at
    once, say) is older than the window, and a constant from the first cut on. A loss that is
    never followed by a gradient, at the end of the block, is dropped: that is what
    :meth:`flush` is for. It reaches no further back than the steps that are still held.

    The state is carried simply by being used again. Steps older than ``k2`` are cut from the
    tape: whatever crosses the boundary is a constant from then on, and memory is bounded by
    ``k2`` steps however long the stream is. With ``k1 < k2`` the overlap is neither computed
    again nor counted twice. Updating parameters between windows is exact, since the tape
    keeps the values that each step has used. ``docs/truncation.md`` has pictures and recipes.

    Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories, 1990: BPTT(k2; k1).

    Args:
        k1: the number of steps between two gradients.
        k2: the number of steps that a gradient reaches back; ``k2 >= k1`` unless the losses
            that fall out of the window are to be left out.
        losses: which losses the gradient is of: ``"new"``, those of the last ``k1`` steps, so
            that each counts once; ``"last"``, that of the last step alone; ``"window"``, all
            of the last ``k2`` steps, so that each counts about k2 / k1 times. A loss older
            than ``k2`` steps is out of reach and never among them.
        normalize: how the losses l of a window, with the weights w that are handed over with
            them, become one number: ``"mean"``, sum(w l) / sum(w), for losses that are means
            over w items, or over a step; ``"weight"``, sum(l) / sum(w), for losses that are
            sums over w items; ``"sum"``, sum(l); or a number, by which that sum is divided.

    Attributes:
        tape: the tape it records on.
        k1, k2: may be set to other numbers right after a gradient.
        boundary_gradient: the gradient of the last window's loss with respect to the state
            that was given to :meth:`watch` in the window's first step, nested as that is;
            ``None`` if there was none.

    Raises ``ValueError`` for settings that make no sense.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor(0.5, requires_grad=True)
    >>> state = mg.tensor(1.0)
    >>> with rnn.TBPTT(k1=1, k2=2, normalize="sum") as truncated:
    ...     for t in range(3):
    ...         state = w * state
    ...         loss = truncated.step(state)
    ...         print(w.grad.item())
    ...         w.grad = None
    1.0
    1.0
    0.5
    """

    def __init__(
        self,
        k1: int,
        k2: int,
        *,
        losses: Literal["new", "last", "window"] = "new",
        normalize: Literal["mean", "weight", "sum"] | float = "mean",
    ) -> None:
        for name, k in (("k1", k1), ("k2", k2)):
            if not isinstance(k, Integral) or k < 1:
                raise ValueError(f"{name} is a number of steps, at least 1, not {k!r}")
        if losses not in ("new", "last", "window"):
            raise ValueError(f"losses is 'new', 'last' or 'window', not {losses!r}")
        divides = isinstance(normalize, Real) and 0 < normalize < inf
        if not divides and normalize not in ("mean", "weight", "sum"):
            raise ValueError(
                f"normalize is 'mean', 'weight', 'sum' or a positive number, not {normalize!r}"
            )
        self.k1 = k1
        self.k2 = k2
        self.losses = losses
        self.normalize = normalize
        self.tape = mg.Tape()
        self.boundary_gradient: State = None
        self._watched: State = None
        #: The calls whose steps are still on the tape, oldest first.
        self._window: deque[_Call] = deque()
        #: The number of their steps, and of all steps since the last gradient.
        self._held = self._since = 0

    def __enter__(self) -> Self:
        self.tape.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.tape.__exit__(kind, error, trace)
        self.reset()

    @overload
    def step(
        self, loss: Tensor, steps: int = 1, weight: float | Tensor | None = None
    ) -> Tensor | None: ...
    @overload
    def step(
        self, loss: dict[str, Tensor], steps: int = 1, weight: float | Tensor | None = None
    ) -> dict[str, Tensor] | None: ...
    @overload
    def step(self, loss: None, steps: int = 1, weight: float | Tensor | None = None) -> Any: ...
    def step(self, loss: Any, steps: int = 1, weight: float | Tensor | None = None) -> Any:
        """Hand over the loss of one time step; returns the window's loss when a gradient is due.

        Several time steps that are computed in one go (a layer run over a part of the
        sequence) are handed over together. No call may reach beyond the step at which a
        gradient is due, or the one at which a window begins: let ``steps`` divide ``k1`` and
        ``k2``.

        Args:
            loss: one number. Or several losses by name: the gradient is that of their sum,
                and each is returned by its name. Or ``None``, if the step has none.
            steps: the number of steps; ``loss`` is then the mean of their losses, or their
                sum, as ``normalize`` says.
            weight: how much the loss counts, a number or a tensor of one: how many valid rows
                (or tokens) it is the mean of, or for ``normalize="weight"`` the sum of;
                ``steps`` by default.

        Returns ``None`` between the gradients, and if no step of the window has a loss.

        Raises ``ValueError`` if a loss is not one number, the steps reach too far, or a
        weight is missing, negative, not used, or zero in all of the window (a tensor on a GPU
        is not looked at, and the loss is NaN); ``TypeError`` if a loss is not a tensor.

        >>> import minigrad as mg, minigrad_rnn as rnn
        >>> w = mg.tensor(2.0, requires_grad=True)
        >>> with rnn.TBPTT(k1=2, k2=2, normalize="weight") as truncated:
        ...     for valid in (3, 1):  # rows that have not ended
        ...         loss = truncated.step({"a": w * valid, "b": w * 0.5}, weight=valid)
        >>> loss, w.grad
        ({'a': tensor(2.), 'b': tensor(0.5)}, tensor(1.25))
        """
        due = self.k1 - self._since
        if steps < 1:
            raise ValueError(f"at least 1 step is handed over, not {steps}")
        if steps > due:
            raise ValueError(f"a gradient is due in {due} steps, and {steps} are handed over")
        if steps > 1 and self.losses == "last":
            raise ValueError("losses='last' needs the steps to be handed over one by one")
        losses = _by_name(loss)
        weight = self._checked_weight(losses, steps, weight)
        if self.normalize == "mean" and (isinstance(weight, Tensor) or weight != 1.0):
            losses = {name: one * weight for name, one in losses.items()}
        self._window.append(_Call(self.tape.mark(), steps, losses, weight, self._watched))
        self._watched = None
        self._held += steps
        self._since += steps
        self._forget_what_is_out_of_reach()
        if steps < due:
            return None
        window_loss = self._propagate()
        self._forget_what_is_out_of_reach()
        return window_loss

    def watch(self, state: State) -> State:
        """The same state, to be used in its place in the next step, and to have a gradient.

        If a window begins with that step, ``boundary_gradient`` is then the gradient of the
        window's loss with respect to this state: what the steps before the window would have
        been sent. It costs a second reading of the window. Call it once a step, with all
        states in one nested container.

        Raises ``ValueError`` if it is called twice in a step, and ``TypeError`` if a part of
        the state is not a tensor. A state that the loss of its window does not depend on
        (usually since the result of ``watch`` was not used) raises ``TapeError``.

        >>> import minigrad as mg, minigrad_rnn as rnn
        >>> w, state = mg.tensor(0.5, requires_grad=True), mg.tensor(1.0)
        >>> with rnn.TBPTT(k1=1, k2=2) as truncated:
        ...     for t in range(3):
        ...         state = w * truncated.watch(state)
        ...         loss = truncated.step(state)
        ...         print(truncated.boundary_gradient.item())
        0.5
        0.25
        0.25
        """
        if self._watched is not None:
            raise ValueError("watch() is called once a step: give it all states, in a tuple")
        self._watched = map_state(_watched, state)
        return self._watched

    def flush(self) -> Any:
        """Propagate back the losses since the last gradient, at the end of a sequence.

        Returns their loss, or ``None`` if there are none; then forgets the window, so that
        the next step begins a new one.
        """
        window_loss = self._propagate() if self._window and self._since else None
        self.reset()
        return window_loss

    def reset(self) -> None:
        """Forget the window and its losses: everything so far becomes a constant."""
        self._window.clear()
        self._watched = None
        self._held = self._since = 0
        self.tape.cut()

    def _checked_weight(
        self, losses: dict[str, Tensor], steps: int, weight: float | Tensor | None
    ) -> float | Tensor:
        """What the losses count for, in a form that leaves them their dtype."""
        if weight is not None and self.normalize not in ("mean", "weight"):
            raise ValueError(f"normalize={self.normalize!r} has no use for a weight: leave it out")
        if not losses:
            return 0.0
        if weight is None and self.normalize == "weight":
            raise ValueError("normalize='weight' divides by the weights: give every loss its own")
        if isinstance(weight, Tensor):
            if weight.size != 1:
                raise ValueError(f"the weight of a loss is one number, not {weight.shape}")
            return weight.detach().astype(next(iter(losses.values())).dtype)
        number = float(steps if weight is None else weight)
        if not 0 <= number < inf:
            raise ValueError(f"the weight of a loss is a number of at least 0, not {number}")
        return number

    def _propagate(self) -> Any:
        wanted = {"new": self._since, "last": 1, "window": self.k2}[self.losses]
        self._since = 0
        self.boundary_gradient = None
        sums: dict[str, Tensor] = {}
        weight: float | Tensor = 0.0
        count = 0
        for call in reversed(self._window):
            if count >= wanted:
                break
            count += call.steps
            weight = weight + call.weight
            for name, loss in call.losses.items():
                sums[name] = sums[name] + loss if name in sums else loss
        if not sums:
            return None
        if "" in sums and len(sums) > 1:
            raise ValueError("either all losses of a window have names, or none")
        divisor: Any = weight
        if self.normalize not in ("mean", "weight"):
            divisor = 1.0 if self.normalize == "sum" else float(self.normalize)
        # On a GPU looking at the weights would mean waiting for them.
        if getattr(divisor, "device", "cpu") == "cpu" and not divisor:
            raise ValueError("the weights of the window's losses sum to 0: there is no mean")
        shares = {name: loss / divisor for name, loss in sums.items()}
        total = reduce(add, shares.values())
        watched = self._window[0].watched
        if watched is not None:
            self.boundary_gradient = self.tape.gradient(total, watched, retain=True)
        self.tape.backward(total, retain=self.k2 > self.k1)
        reported = {name: loss.detach() for name, loss in shares.items()}
        return reported.get("", reported)

    def _forget_what_is_out_of_reach(self) -> None:
        """Cut the steps that the next gradient will not reach."""
        reached = max(self.k2 - (self.k1 - self._since), 0)
        expected = min(self._held, reached)
        cut = self.tape.base
        while self._held > reached:
            call = self._window.popleft()
            self._held -= call.steps
            cut = call.end
        self.tape.cut(cut)
        if self._held != expected:
            raise ValueError(
                f"a window begins inside the {call.steps} steps that were handed over together: "
                f"let their number divide k1={self.k1} and k2={self.k2}"
            )


def _by_name(loss: Any) -> dict[str, Tensor]:
    """The losses of a step by name; a loss without one has the name ""."""
    losses = {} if loss is None else loss if isinstance(loss, dict) else {"": loss}
    for one in losses.values():
        if not isinstance(one, Tensor):
            raise TypeError(
                f"the loss of a step is a Tensor, not a {type(one).__name__}: hand over the "
                "tensor that was computed, not its .item()"
            )
        if one.size != 1:
            raise ValueError(f"the loss of a step is one number, not a tensor of {one.shape}")
    return losses


def _watched(part: Any) -> Tensor:
    """The same values at the beginning of a step, on the tape or else as a leaf."""
    if not isinstance(part, Tensor):
        raise TypeError(
            f"watch() takes a tensor, or nested containers of tensors, not a {type(part).__name__}"
        )
    here = mg.scale_gradient(part, 1.0)
    return here if here.requires_grad else mg.asarray(part, requires_grad=True)
