"""Tape: a list of what was computed, in the order in which it was computed.

Reverse-mode differentiation is reading that list backwards. Every entry says how the
gradient of its result becomes gradients of its operands (the *rules* of its operation),
so one loop over descending slots carries a gradient from the end of the list to its
beginning. There is no graph to sort and no recursion: the order is the order of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Token
from itertools import islice
from pathlib import Path
from sys import _getframe
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from minigrad import listing
from minigrad.arrays import DType, TensorLike, as_array, is_array, namespace
from minigrad.slots import CONSTANT, LEAF, active_tape, leaves, new_block, tape_of
from minigrad.tensor import TapeError, Tensor, as_operand, describe, no_history

if TYPE_CHECKING:
    from minigrad.primitive import Plan, Primitive, Rule

#: Stands for the result among the values that a plan keeps.
OUT: Final = -1

#: A code object and the offset of an instruction in it.
Line = tuple[CodeType, int] | None

_ENGINE: Final = str(Path(__file__).parent) + os.sep


class Entry:
    """One computed result: data only, so that it can be printed, counted and played.

    Attributes:
        operation: the primitive that ran.
        slot: the slot of its result; of the first one, if there are several.
        operands: the slot of every operand.
        plan: which rules will be played, and what they need.
        saved: what the rules need, and nothing else, in the order of ``plan.keep``.
        result: shape and dtype of the result; a list of these if there are several.
        settings: the keyword arguments of the operation.
        line: the code object and instruction of the user's line.
    """

    __slots__ = ("line", "operands", "operation", "plan", "result", "saved", "settings", "slot")

    def __init__(
        self,
        operation: Primitive,
        slot: int,
        operands: Sequence[int],
        plan: Plan,
        saved: tuple[Any, ...],
        result: Any,
        settings: dict[str, Any],
        line: Line,
    ) -> None:
        self.operation = operation
        self.slot = slot
        self.operands = operands
        self.plan = plan
        self.saved = saved
        self.result = result
        self.settings = settings
        self.line = line


class Tape:
    """Records every operation on tensors that want a gradient, inside its ``with`` block.

    One tape serves every order of derivative. It belongs to the thread (or asyncio task)
    that opened it. Leaving the block stops recording and keeps what was recorded; leaving
    it by an exception empties the tape.

    >>> import minigrad as mg
    >>> w = mg.tensor(3.0, requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     loss = w**2
    >>> tape.gradient(loss, w)
    tensor(6.)
    """

    __slots__ = (
        "__weakref__",
        "_consumer",
        "_entries",
        "_first",
        "_origin",
        "_start",
        "_token",
        "base",
    )

    #: Tensors whose slot is below ``base`` are constants to this tape.
    base: int

    def __init__(self) -> None:
        self._origin = self.base = new_block(self)
        # The entry of slot s is _entries[s - _first]. Entries below _start are forgotten:
        # below base they were cut, from there on a gradient consumed them.
        self._entries: list[Entry | None] = []
        self._first = self._start = self._origin
        self._consumer: Line = None
        self._token: Token[Tape | None] | None = None

    # ---------------------------------------------------------------- recording

    def __enter__(self) -> Self:
        active = active_tape.get()
        if active is not None:
            raise TapeError(
                "a tape is already recording here, and one tape serves every order of "
                "derivative: use it (with create_graph=True for higher orders), or wrap the "
                "inner one in `with mg.no_grad():` to keep them apart"
            )
        self._token = active_tape.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._token is not None
        active_tape.reset(self._token)
        self._token = None
        if kind is not None:
            self.cut()

    def record(
        self,
        operation: Primitive,
        plan: Plan,
        operands: Sequence[int],
        values: Sequence[Any],
        out: Any,
        settings: dict[str, Any],
    ) -> int:
        """Append an entry for what ``operation`` has computed; return its (first) slot."""
        entries = self._entries
        slot = self._first + len(entries)
        saved = plan.pick((*values, out)) if plan.keep else ()
        # The user's line is the innermost one outside the engine. (This is _users_line,
        # without the call.)
        frame: FrameType | None = _getframe(2)
        while frame is not None and frame.f_code.co_filename.startswith(_ENGINE):
            frame = frame.f_back
        line = None if frame is None else (frame.f_code, frame.f_lasti)
        if type(out) is tuple:
            results = [(array.shape, array.dtype) for array in out]
            entry = Entry(operation, slot, operands, plan, saved, results, settings, line)
            entries.extend([entry] * len(out))
        else:
            result = (out.shape, out.dtype)
            entries.append(Entry(operation, slot, operands, plan, saved, result, settings, line))
        return slot

    # ---------------------------------------------------------------- cutting

    def mark(self) -> int:
        """The present position, to be given to :meth:`cut` later."""
        return self._first + len(self._entries)

    def cut(self, mark: int | None = None) -> None:
        """Forget everything before ``mark``, or everything so far.

        The arrays held by those entries are freed at once, and tensors made before the
        mark are constants from now on, whichever of them are still in use. Leaves are not
        affected. The cost is proportional to what is forgotten, not to what is kept.

        Raises ``TapeError`` if ``mark`` is not a position on this tape.

        >>> import minigrad as mg
        >>> w = mg.tensor(2.0, requires_grad=True)
        >>> with mg.Tape() as tape:
        ...     state = w * 3.0
        ...     tape.cut()
        ...     loss = w * state
        >>> tape.gradient(loss, w)  # the state, 6, is a constant now
        tensor(6.)
        """
        end = self.mark()
        mark = end if mark is None else mark
        if not self._origin <= mark <= end:
            raise TapeError("this mark is not a position on this tape: take it from tape.mark()")
        self.base = max(self.base, mark)
        self._forget(mark)

    def _forget(self, mark: int) -> None:
        """Drop the entries before ``mark``; those that stay are moved only now and then."""
        entries = self._entries
        for i in range(self._start - self._first, mark - self._first):
            entries[i] = None
        self._start = max(self._start, mark)
        dead = self._start - self._first
        if 2 * dead >= len(entries):
            del entries[:dead]
            self._first = self._start

    # ---------------------------------------------------------------- differentiating

    def gradient(
        self,
        target: Tensor,
        sources: Any,
        seed: TensorLike = None,
        *,
        retain: bool = False,
        create_graph: bool = False,
        unconnected: Literal["error", "zero", "none"] = "error",
    ) -> Any:
        """The gradient of ``target`` with respect to every source.

        ``target`` (of any shape, see ``seed``) and the sources (leaves or computed tensors)
        are tensors on this tape. With the seed g, the result for a source x is the
        vector-Jacobian product  g^T . d target / d x,  of the shape and dtype of x.

        Args:
            target: usually a loss, of one element.
            sources: a Tensor, or a list, tuple or dictionary of Tensors; the gradients are
                returned in the same form.
            seed: the gradient of ``target`` itself, of its shape; 1 for a single element.
            retain: keep the entries for another gradient. Otherwise they are consumed: let
                go one by one while the tape is read backwards.
            create_graph: record the computation of the gradient on this tape, so that it
                can be differentiated again; implies ``retain``. The tape must be recording.
            unconnected: what to return for a source that the target does not depend on:
                ``"error"`` raises, ``"zero"`` gives zeros, ``"none"`` gives ``None``.

        Raises:
            TapeError: if the target is not on this tape, was cut away or consumed; if a
                source is none of its leaves or tensors, or unconnected; if a rule fails or
                returns a gradient that does not fit.
            ValueError: if the target has several elements and no seed, or the seed does not
                fit it.

        >>> import minigrad as mg
        >>> x = mg.tensor(2.0, requires_grad=True)
        >>> with mg.Tape() as tape:
        ...     first = tape.gradient(x**3, x, create_graph=True)
        >>> first, tape.gradient(first, x)  # 3 x^2 and 6 x
        (tensor(12., slot=3), tensor(12.))
        """
        wanted: set[int] = set()
        _map_tensors(lambda name, source: wanted.add(self._wanted(name, source)), sources)
        if create_graph and active_tape.get() is not self:
            raise TapeError(
                "create_graph=True records the gradient on this tape: call it inside the "
                "`with` block"
            )
        found = self._play_back(target, seed, wanted, retain or create_graph, create_graph)

        def result(name: str, source: Tensor) -> Tensor | None:
            gradient = found.get(source.slot)
            if gradient is None:
                if unconnected == "none":
                    return None
                if unconnected == "error":
                    raise TapeError(
                        f"the target does not depend on {name}, a {describe(source)} tensor: "
                        "check where the computation leaves it out (a detach, a cut, a constant), "
                        "or say what to return with unconnected='zero' or 'none'"
                    )
                return Tensor(namespace(source.array).zeros_like(source.array))
            return gradient if isinstance(gradient, Tensor) else Tensor(as_array(gradient))

        return _map_tensors(result, sources)

    def backward(self, target: Tensor, seed: TensorLike = None, *, retain: bool = False) -> None:
        """Add the gradient of ``target`` to ``.grad`` of every leaf that it depends on.

        The arguments and errors are those of :meth:`gradient`. ``.grad`` of a leaf is a
        plain constant; nothing but the tape holds history.

        >>> import minigrad as mg
        >>> w = mg.tensor([1.0, 2.0], requires_grad=True)
        >>> with mg.Tape() as tape:
        ...     loss = mg.sum(w * w)
        >>> tape.backward(loss)
        >>> w.grad
        tensor([2., 4.])
        """
        for slot, gradient in self._play_back(target, seed, None, retain, False).items():
            leaf = leaves.get(slot)
            if leaf is not None:
                old = leaf.grad
                total = gradient if old is None else old.array + gradient
                leaf.grad = Tensor(as_array(total))

    def _play_back(
        self,
        target: Tensor,
        seed: TensorLike,
        wanted: set[int] | None,
        retain: bool,
        create_graph: bool,
    ) -> dict[int, Any]:
        """Read the tape backwards from ``target``; return the gradients of ``wanted`` slots.

        ``None`` wants all leaves. The gradients are arrays; with ``create_graph`` they and
        everything that the rules are given are Tensors, so that the rules are recorded.
        """
        self._check_target(target)
        seed = _seed_for(target, seed)
        gradients: dict[int, Any] = {
            target.slot: (seed if isinstance(seed, Tensor) else Tensor(seed))
            if create_graph
            else as_operand(seed)
        }
        found: dict[int, Any] = {}
        computed = set() if wanted is None else {slot for slot in wanted if slot < LEAF}
        leaf_results = _LeafResults(wanted)
        base, start, first, entries = self.base, self._start, self._first, self._entries
        # Nothing below the lowest wanted slot can matter; leaves are wanted from everywhere.
        lowest = max(start, min(computed)) if computed and computed == wanted else start
        last = target.slot if target.slot < LEAF else start - 1
        entry = rule = None
        suspended = None if create_graph else active_tape.set(None)
        try:
            for slot in range(last, lowest - 1, -1):
                entry = entries[slot - first]
                if not retain:
                    entries[slot - first] = None
                assert entry is not None
                if slot in computed and slot in gradients:
                    found[slot] = gradients[slot]
                if type(entry.result) is tuple:
                    gradient = gradients.pop(slot, None)
                elif entry.slot == slot:
                    gradient = _gradients_of_results(entry, gradients)
                else:
                    continue  # a later result of several: played with the first
                if gradient is None:
                    continue
                saved: Sequence[Any] = _saved_tensors(entry) if create_graph else entry.saved
                for rule in entry.plan.rules:
                    parent = entry.operands[rule.position]
                    if parent > slot:
                        result = leaf_results[parent]
                        if result is None:
                            continue
                    elif parent >= start:
                        maker: Any = entries[parent - first]
                        result = maker.result
                        if type(result) is list:
                            result = result[parent - maker.slot]
                    elif parent < base:
                        continue
                    else:
                        raise self._consumed_error("a tensor that this target depends on")
                    shape, dtype = result
                    part = rule.play(gradient, saved, entry, shape)
                    if part.shape != shape:
                        part = _unbroadcast(part, shape, rule, entry)
                    if part.dtype is not dtype and part.dtype != dtype:
                        part = _cast(part, dtype, rule, entry)
                    old = gradients.get(parent)
                    gradients[parent] = part if old is None else old + part
        except Exception as error:
            if isinstance(error, TapeError) or entry is None or rule is None:
                raise
            raise TapeError(
                f"the rule of {entry.operation.name} for {rule.operand} failed "
                f"({type(error).__name__}: {error}); recorded at {listing.place(entry.line)}"
            ) from error
        finally:
            if suspended is not None:
                active_tape.reset(suspended)
            if not retain:
                self._consumer = _users_line(_getframe(1))
                self._forget(last + 1)
        for slot, gradient in gradients.items():
            if slot >= LEAF if wanted is None else slot in wanted:
                found[slot] = gradient
            elif lowest <= slot < LEAF:  # a later result of several, the first being consumed
                raise self._consumed_error("a tensor that this target depends on")
        return found

    # ---------------------------------------------------------------- what can go wrong

    def _check_target(self, target: Tensor) -> None:
        if not isinstance(target, Tensor):
            raise TypeError(f"the target is a Tensor, not {type(target).__name__}")
        if target.slot >= LEAF or self._start <= target.slot < self.mark():
            return
        if self.base <= target.slot < self._start:
            raise self._consumed_error("this target")
        if self._origin <= target.slot < self.base:
            raise TapeError("this target was cut away from the tape: it is a constant now")
        if tape_of(target.slot) is not None:
            raise TapeError("this target was recorded on another tape: ask that one")
        raise TapeError(no_history(target))

    def _wanted(self, name: str, source: Tensor) -> int:
        slot = source.slot
        if slot >= LEAF or self._start <= slot < self.mark():
            return slot
        if self.base <= slot < self._start:
            raise self._consumed_error(name)
        if self._origin <= slot < self.base:
            raise TapeError(f"{name} was cut away from the tape: it is a constant now")
        if slot == CONSTANT:
            raise TapeError(
                f"{name} is a constant: make it a leaf (requires_grad=True, or a Parameter), or "
                "compute it inside the tape's `with` block"
            )
        raise TapeError(f"{name} was recorded on another tape and is a constant to this one")

    def _consumed_error(self, subject: str) -> TapeError:
        return TapeError(
            f"{subject} was consumed by the gradient computed at {listing.place(self._consumer)}: "
            "give that call retain=True to read the tape again, or call tape.cut() after it to "
            "make what came before a constant"
        )

    # ---------------------------------------------------------------- looks

    def __len__(self) -> int:
        """The number of recorded results."""
        return self.mark() - self._start

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Entry]:
        """The entries, oldest first."""
        for i, entry in enumerate(islice(self._entries, self._start - self._first, None)):
            assert entry is not None
            if entry.slot == self._start + i:
                yield entry

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays that the entries keep alive, each counted once."""
        seen: set[int] = set()
        return sum(listing.held_bytes(entry, seen) for entry in self)

    def __repr__(self) -> str:
        state = "recording" if active_tape.get() is self else "not recording"
        return f"<Tape: {len(self)} results, {listing.bytes_text(self.nbytes)} held, {state}>"

    def __str__(self) -> str:
        return listing.table(self, self._origin)


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing is recorded inside this block, also while a tape is open.

    >>> import minigrad as mg
    >>> w = mg.tensor(1.0, requires_grad=True)
    >>> with mg.Tape() as tape, mg.no_grad():
    ...     y = w * 2.0
    >>> len(tape)
    0
    """
    token = active_tape.set(None)
    try:
        yield
    finally:
        active_tape.reset(token)


# --------------------------------------------------------------------------------------
# Steps of the backward loop
# --------------------------------------------------------------------------------------


def _seed_for(target: Tensor, seed: TensorLike) -> Any:
    if target.dtype.kind != "f":
        raise TypeError(f"only a float tensor has a gradient; this target is {describe(target)}")
    if seed is None:
        if target.size != 1:
            raise ValueError(
                f"this target has shape {target.shape}, and only one number has a gradient "
                "without more: reduce it (mg.sum, mg.mean), or give the seed, an array of its "
                "shape that weighs its elements"
            )
        return namespace(target.array).ones_like(target.array)
    if not isinstance(seed, Tensor):
        seed = namespace(target.array).asarray(as_operand(seed), dtype=target.dtype)
    if seed.shape != target.shape or seed.dtype != target.dtype:
        raise ValueError(f"the seed of a {describe(target)} target is {describe(seed)}")
    return seed


class _LeafResults(dict[int, Any]):
    """Shape and dtype by slot of the leaves that want a gradient, ``None`` for the others."""

    def __init__(self, wanted: set[int] | None) -> None:
        self.wanted = wanted

    def __missing__(self, slot: int) -> Any:
        if slot < LEAF:
            raise TapeError(
                "this target depends on a tensor that another tape recorded while this one was "
                "paused: write t.detach() where it enters"
            )
        leaf = leaves.get(slot) if self.wanted is None or slot in self.wanted else None
        self[slot] = None if leaf is None else (leaf.shape, leaf.dtype)
        return self[slot]


def _gradients_of_results(entry: Entry, gradients: dict[int, Any]) -> tuple[Any, ...] | None:
    """Take the gradients of an operation's several results; zeros where there is none."""
    parts = [gradients.pop(entry.slot + i, None) for i in range(len(entry.result))]
    some = next((part for part in parts if part is not None), None)
    if some is None:
        return None
    zeros = namespace(as_operand(some)).zeros
    for i, (shape, dtype) in enumerate(entry.result):
        if parts[i] is None:
            blank = zeros(shape, dtype)
            parts[i] = Tensor(blank) if isinstance(some, Tensor) else blank
    return tuple(parts)


def _saved_tensors(entry: Entry) -> list[Any]:
    """What the entry saved, as Tensors at their old slots."""
    tensors: list[Any] = []
    for i, value in zip(entry.plan.keep, entry.saved, strict=True):
        slot = entry.slot if i == OUT else entry.operands[i]
        if type(value) is tuple:  # an operation's several results
            tensors.append(tuple(Tensor(array, slot + k) for k, array in enumerate(value)))
        else:
            tensors.append(Tensor(value, slot) if is_array(value) else value)
    return tensors


def _unbroadcast(part: Any, shape: tuple[int, ...], rule: Rule, entry: Entry) -> Any:
    """Sum the gradient of a broadcast operand over the axes along which it was repeated."""
    extra = len(part.shape) - len(shape)
    stretched = tuple(
        extra + axis
        for axis, length in enumerate(shape)
        if length == 1 and extra >= 0 and part.shape[extra + axis] != 1
    )
    axes = (*range(extra), *stretched)
    summed = part.sum(axis=axes, keepdims=True) if axes else part
    if extra >= 0 and summed.shape[extra:] == shape:
        return summed.reshape(shape)
    raise TapeError(
        f"the rule of {entry.operation.name} for {rule.operand} returned a gradient of shape "
        f"{part.shape} for an operand of shape {shape}, recorded at {listing.place(entry.line)}"
    )


def _cast(part: Any, dtype: DType, rule: Rule, entry: Entry) -> Any:
    """The gradient in its operand's dtype, from which promotion had led away."""
    if part.dtype.kind != "f":
        raise TapeError(
            f"the rule of {entry.operation.name} for {rule.operand} returned a gradient of "
            f"{part.dtype} for an operand of {dtype}, recorded at {listing.place(entry.line)}"
        )
    return part.astype(dtype)


def _users_line(frame: FrameType | None) -> Line:
    """The innermost line outside the engine: the one that a user would recognise."""
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_ENGINE):
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def _map_tensors(function: Any, tensors: Any, name: str = "the source") -> Any:
    """``function(name, tensor)`` for every tensor of a list, tuple or dictionary of them."""
    if isinstance(tensors, Tensor):
        return function(name, tensors)
    if isinstance(tensors, dict):
        return {key: _map_tensors(function, t, f"source {key!r}") for key, t in tensors.items()}
    if isinstance(tensors, list | tuple):
        parts = [_map_tensors(function, t, f"source {i}") for i, t in enumerate(tensors)]
        return parts if isinstance(tensors, list) else tuple(parts)
    raise TypeError(f"{name} is a {type(tensors).__name__}, not a Tensor")
