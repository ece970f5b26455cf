"""Truncated backpropagation through time, by cutting the tape."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Literal, Self

import minigrad as mg
from minigrad import Tensor


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
    keeps the values that each step has used.

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
        normalize: ``"mean"`` divides their sum by their number, ``"sum"`` does not.

    Attributes:
        tape: the tape it records on.

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
        normalize: Literal["mean", "sum"] = "mean",
    ) -> None:
        for name, k in (("k1", k1), ("k2", k2)):
            if not isinstance(k, int) or k < 1:
                raise ValueError(f"{name} is a number of steps, at least 1, not {k!r}")
        if losses not in ("new", "last", "window"):
            raise ValueError(f"losses is 'new', 'last' or 'window', not {losses!r}")
        if normalize not in ("mean", "sum"):
            raise ValueError(f"normalize is 'mean' or 'sum', not {normalize!r}")
        self.k1 = k1
        self.k2 = k2
        self.losses = losses
        self.normalize = normalize
        self.tape = mg.Tape()
        self._due = k1
        # Of each call still on the tape: where it ended, its number of steps, its loss.
        self._window: deque[tuple[int, int, Tensor]] = deque()
        self._held = 0

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

    def step(self, loss: Tensor, steps: int = 1) -> Tensor | None:
        """Hand over the loss of one time step; returns the window's loss when a gradient is due.

        Several time steps that are computed in one go (a layer run over a part of the
        sequence) are handed over together: ``steps`` is their number, and ``loss`` the mean,
        or for ``normalize="sum"`` the sum, of their losses. ``k1`` and ``k2`` must be
        multiples of it, and no call may reach beyond the step at which a gradient is due.

        Raises ``ValueError`` if the loss is not one number, ``steps`` does not divide ``k1``
        and ``k2``, or the steps reach beyond the next gradient.
        """
        if loss.size != 1:
            raise ValueError(f"the loss of a step is one number, not a tensor of {loss.shape}")
        if steps < 1 or self.k1 % steps or self.k2 % steps:
            raise ValueError(
                f"k1={self.k1} and k2={self.k2} are not multiples of the {steps} steps handed over"
            )
        if steps > self._due:
            raise ValueError(
                f"a gradient is due in {self._due} steps, and {steps} are handed over at once"
            )
        if steps > 1 and self.losses == "last":
            raise ValueError("losses='last' needs the steps to be handed over one by one")
        self._window.append((self.tape.mark(), steps, loss))
        self._held += steps
        self._due -= steps
        window_loss = self._propagate() if self._due <= 0 else None
        self._forget_what_is_out_of_reach()
        return window_loss

    def flush(self) -> Tensor | None:
        """Propagate back the losses since the last gradient, at the end of a sequence.

        Returns their loss, or ``None`` if there are none; then forgets the window, so that
        the next step begins a new one.
        """
        window_loss = self._propagate() if self._window and self._due < self.k1 else None
        self.reset()
        return window_loss

    def reset(self) -> None:
        """Forget the window and its losses: everything so far becomes a constant."""
        self._window.clear()
        self._held = 0
        self._due = self.k1
        self.tape.cut()

    def _propagate(self) -> Tensor:
        since = self.k1 - self._due
        self._due = self.k1
        wanted = {"new": since, "last": 1, "window": self.k2}[self.losses]
        total, count = None, 0
        for _, steps, loss in reversed(self._window):
            if count >= wanted:
                break
            count += steps
            part = loss * steps if self.normalize == "mean" else loss
            total = part if total is None else total + part
        assert total is not None
        if self.normalize == "mean":
            total = total / count
        self.tape.backward(total, retain=self.k2 > self.k1)
        return total.detach()

    def _forget_what_is_out_of_reach(self) -> None:
        """Cut the steps that the next gradient, in ``_due`` steps, will not reach."""
        reached = max(self.k2 - self._due, 0)
        cut = self.tape.base
        while self._held > reached:
            cut, steps, _ = self._window.popleft()
            self._held -= steps
        self.tape.cut(cut)
