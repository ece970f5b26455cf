"""Tape: a list of what was computed, in the order in which it was computed.

Reverse-mode differentiation is reading that list backwards. Every entry says how the
gradient of its result becomes gradients of its operands (the *rules* of its operation),
so one loop over descending slots carries a gradient from the end of the list to its
beginning. There is no graph to sort and no recursion: the order is the order of time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Token
from itertools import islice
from pathlib import Path
from sys import _getframe
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Self

from minigrad import listing
from minigrad.arrays import DType, TensorLike, as_array, is_array, namespace
from minigrad.containers import map_leaves
from minigrad.diagnosis import check_finite, fingerprints
from minigrad.slots import (
    LEAF,
    active_tape,
    debugging,
    in_step,
    leaves,
    new_block,
    tape_of,
    without_tape,
)
from minigrad.tensor import TapeError, Tensor, as_operand, describe, no_history

if TYPE_CHECKING:
    from minigrad.primitive import Plan, Primitive, Rule

#: A code object and the offset of an instruction in it.
Line = tuple[CodeType, int]

#: How many results a tape may hold before it warns that nobody reads it.
LARGE: Final = 1_000_000

_FOLDER: Final = str(Path(__file__).parent) + os.sep


class _OwnFiles(dict[str, bool]):
    """File name -> whether it is one of the engine's own, which never hold the user's line."""

    def __missing__(self, name: str) -> bool:
        found = self[name] = name.startswith(_FOLDER)
        return found


in_engine: Final = _OwnFiles()


class Entry(NamedTuple):
    """One computed result: data only, so that it can be printed, counted and played.

    On the tape it is a plain tuple of these, which takes a fraction of the time to make.
    """

    #: The operation, the rules that will be played, and what they need.
    plan: Plan
    #: The slot of every operand.
    operands: Sequence[int]
    #: What the rules need, and nothing else, in the order of ``plan.keep``.
    saved: tuple[Any, ...]
    #: Shapes and dtypes of the operands that want a gradient; ``None`` if they are all those
    #: of the result.
    like: tuple[Sequence[tuple[int, ...]], Sequence[DType]] | None
    #: Shape and dtype of the result. They are lists if the operation has several; then the
    #: entry stands on the tape once for each.
    shape: Any
    dtype: Any
    #: The keyword arguments of the operation.
    settings: dict[str, Any]
    #: The user's line: its code object, and the instruction in it.
    code: CodeType
    instruction: int

    @property
    def operation(self) -> Primitive:
        """The operation that ran."""
        return self.plan.operation


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
        "_origin",
        "_token",
        "base",
        "checked",
        "code",
        "entries",
        "fingerprints",
        "first",
        "retains",
        "start",
        "watched",
    )

    #: Tensors whose slot is below ``base`` are constants to this tape.
    base: int

    #: Whether it records a step for a scan, and whether another tape may record meanwhile.
    in_step = paused = False

    #: What the rules are given for operands and results, when they are recorded.
    saved_as: ClassVar[type[Tensor]] = Tensor

    def __init__(self) -> None:
        self._origin = self.base = new_block(self)
        # Positions on a tape are slots, and stand in this order:
        #
        #   _origin     base             start                       mark()
        #      |  cut   |    consumed    |   can be read and played    |
        #
        # The entry of slot s is entries[s - first], where first <= start: forgotten entries
        # are None, until half of the list is and they are dropped from it.
        self.entries: list[Any] = []
        self.first = self.start = self._origin
        self._consumer: Line | None = None
        # Inside mg.debug(): a checksum of what every entry saved, by slot.
        self.checked = False
        # The code of the user's that recorded last: the next operation's is most often the same.
        self.code: CodeType | None = None
        # Whether every operation, of constants too, is handed to observed().
        self.watched = False
        # Whether what is read just now will be read again.
        self.retains = False
        self.fingerprints: dict[int, list[int]] = {}
        self._token: Token[Tape | None] | None = None

    # ---------------------------------------------------------------- recording

    def __enter__(self) -> Self:
        active = active_tape.get()
        if active is not None and not active.paused:
            raise TapeError(
                "a tape is already recording here, and one tape serves every order of "
                "derivative: use it (with create_graph=True for higher orders), or wrap the "
                "inner one in `with mg.no_grad():` to keep them apart"
            )
        self._token = active_tape.set(self)
        self.checked = self.watched = debugging.get()
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

    def observed(
        self,
        primitive: Primitive,
        slots: Sequence[int],
        values: Sequence[Any],
        settings: dict[str, Any],
        results: list[Tensor],
    ) -> list[Tensor]:
        """What becomes of the results of an operation on a tape that is ``watched``."""
        return results

    def suspended(self) -> AbstractContextManager[None]:
        """In this block it does not record."""
        return without_tape()

    # ---------------------------------------------------------------- cutting

    def mark(self) -> int:
        """The present position, to be given to :meth:`cut` later."""
        return self.first + len(self.entries)

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
        if in_step():
            raise TapeError(
                "a tape cannot be cut in a step that is scanned, which is recorded once: cut it "
                "between two scans, or write the loop in Python"
            )
        end = self.mark()
        mark = end if mark is None else mark
        if not self._origin <= mark <= end:
            raise TapeError("this mark is not a position on this tape: take it from tape.mark()")
        self.base = max(self.base, mark)
        self._forget(mark)

    def _forget(self, mark: int) -> None:
        """Drop the entries before ``mark``; those that stay are moved only now and then."""
        entries = self.entries
        for slot in [slot for slot in self.fingerprints if slot < mark]:
            del self.fingerprints[slot]
        if mark > self.start:
            entries[self.start - self.first : mark - self.first] = [None] * (mark - self.start)
            self.start = mark
        dead = self.start - self.first
        if 2 * dead >= len(entries):
            del entries[:dead]
            self.first = self.start

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
            sources: a Tensor, or nested lists, tuples and dictionaries of Tensors; the
                gradients are returned in the same form.
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
                returns a gradient that does not fit. What was read until then is consumed.
            ValueError: if the target has several elements and no seed, or the seed does not
                fit it.

        >>> import minigrad as mg
        >>> x = mg.tensor(2.0, requires_grad=True)
        >>> with mg.Tape() as tape:
        ...     first = tape.gradient(x**3, x, create_graph=True)
        >>> first, tape.gradient(first, x)  # 3 x^2 and 6 x
        (tensor(12., slot=3), tensor(12.))
        """
        if unconnected not in ("error", "zero", "none"):
            raise ValueError(f"unconnected is 'error', 'zero' or 'none', not {unconnected!r}")
        wanted: set[int] = set()
        map_leaves(lambda name, source: wanted.add(self._readable(name, source)), sources, "source")
        if create_graph and active_tape.get() is not self:
            raise TapeError(
                "create_graph=True records the gradient on this tape: call it inside the "
                "`with` block"
            )
        found = self.play_back([(target, seed)], wanted, retain or create_graph, create_graph)

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

        return map_leaves(result, sources, "source")

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
        for slot, gradient in self.play_back([(target, seed)], None, retain, False).items():
            leaf = leaves.get(slot)
            if leaf is not None:
                old = leaf.grad
                total = gradient if old is None else old.array + gradient
                leaf.grad = Tensor(as_array(total))

    def collapse(self, mark: int) -> None:
        """Drop the entries since ``mark`` and keep their slots, which nobody may use again.

        A checkpoint does this: one entry that can compute them again takes their place.
        """
        self.entries[mark - self.first :] = [None] * (self.mark() - mark)

    def play_back(
        self,
        targets: Sequence[tuple[Tensor, TensorLike]],
        wanted: set[int] | None,
        retain: bool,
        create_graph: bool,
        since: int = 0,
    ) -> dict[int, Any]:
        """Read the tape backwards from targets with seeds; the gradients of ``wanted`` slots.

        ``None`` wants all leaves. The gradients are arrays; with ``create_graph`` they and
        everything that the rules are given are Tensors, so that the rules are recorded.
        Entries before the mark ``since`` are not played.
        """
        self.retains = retain
        gradients: dict[int, Any] = {}
        for target, seed in targets:
            slot = self._readable("this target", target)
            seed = _seed_for(target, seed)
            if not create_graph:
                seed = as_operand(seed)
            elif not isinstance(seed, Tensor):
                seed = Tensor(seed)
            old = gradients.get(slot)
            gradients[slot] = seed if old is None else old + seed
        found: dict[int, Any] = {}
        computed = {slot for slot in wanted or () if slot < LEAF}
        base, start, first, entries = self.base, self.start, self.first, self.entries
        checked, fingerprinted = self.checked, self.fingerprints
        # Entries at stop and below are not played. If no leaf is wanted, there is no need to
        # go below the lowest slot that is.
        stop = max(start, since) - 1
        if computed and computed == wanted:
            stop = max(stop, min(computed))
        last = max([slot for slot in gradients if slot < LEAF], default=start - 1)
        end = last + 1
        while start < end < self.mark() and entries[end - first] is entries[last - first]:
            end += 1  # results of the same operation are consumed together
        played = entries[stop + 1 - first : end - first]
        if not retain:
            entries[stop + 1 - first : end - first] = [None] * len(played)
        known, take = gradients.get, gradients.pop
        rule: Any = None
        part: Any = seed
        # Setting a context variable, to None as well, makes each of NumPy's operations slower.
        suspend = not create_graph and active_tape.get() is not None
        suspended = active_tape.set(None) if suspend else None
        slot = end
        try:
            while played:
                entry = played.pop()
                slot -= 1
                if entry is None:
                    if slot in gradients:
                        raise self._hidden_error()
                    continue
                plan, operands, saved, like, shape, dtype, _, _, _ = entry
                if computed and slot in computed and slot in gradients:
                    found[slot] = gradients[slot]
                if like is None or type(shape) is tuple:
                    gradient = take(slot, None)
                elif played and played[-1] is entry:
                    continue  # a later result of several, which are played with the first
                else:
                    gradient = _gradients_of_results(slot, entry, gradients)
                if gradient is None:
                    continue
                if checked and slot in fingerprinted:
                    self._check_unchanged(slot, entry)
                if create_graph:
                    saved = _saved_tensors(slot, entry, self.saved_as)
                for rule in plan.rules:
                    function, place, position, number, _ = rule
                    parent = operands[position]
                    old = known(parent)
                    if old is None:
                        if parent > slot:  # a leaf; entries come after what they were computed from
                            if parent < LEAF:
                                raise self._foreign_error()
                            if wanted is not None and parent not in wanted:
                                continue
                        elif parent < start and not (wanted and parent in wanted):
                            if parent < base:
                                continue
                            raise self._consumed_error("a tensor that this target depends on")
                    part = function(gradient, saved if place is None else saved[place])
                    if like is not None:
                        shape = like[0][number]
                        dtype = like[1][number]
                    if part.shape != shape or part.dtype is not dtype:
                        part = _fitted(part, shape, dtype, rule, entry)
                    if checked:
                        _check_gradient(part, rule, entry)
                    gradients[parent] = part if old is None else old + part
        except Exception as error:
            if isinstance(error, TapeError | FloatingPointError | Warning) or rule is None:
                raise
            problem = f"failed ({type(error).__name__}: {error})"
            if not isinstance(part, Tensor) and not is_array(part):
                problem = f"returned {type(part).__name__}, not an array"
            raise TapeError(
                f"{_rule_of(rule, entry)} {problem}; recorded at {listing.place(entry[-2:])}"
            ) from error
        finally:
            if suspended is not None:
                active_tape.reset(suspended)
            if not retain and end > start:
                self._consumer = users_line(_getframe(1))
                self._forget(end)
        for slot, gradient in gradients.items():
            if slot >= LEAF if wanted is None else slot in wanted:
                found[slot] = gradient
        return found

    # ---------------------------------------------------------------- what can go wrong

    def _readable(self, name: str, tensor: Tensor) -> int:
        """The slot of a tensor whose history this tape can read, or of a leaf."""
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}, not a Tensor")
        slot = tensor.slot
        if slot >= LEAF or self.start <= slot < self.mark():
            return slot
        if self.base <= slot < self.start:
            raise self._consumed_error(name)
        if self._origin <= slot < self.base:
            raise TapeError(f"{name} was cut away from the tape: it is a constant now")
        if tape_of(slot) is not None:
            raise TapeError(f"{name} was recorded on another tape and is a constant to this one")
        raise TapeError(f"{name} {no_history(tensor)}")

    def _consumed_error(self, subject: str) -> TapeError:
        return TapeError(
            f"{subject} was consumed by the gradient computed at {listing.place(self._consumer)}: "
            "give that call retain=True to read the tape again, or call tape.cut() after it to "
            "make what came before a constant"
        )

    def _hidden_error(self) -> TapeError:
        return TapeError(
            "this target depends on a tensor that was computed inside a checkpointed function and "
            "is not one of its results: return it from there"
        )

    def _check_unchanged(self, slot: int, entry: Any) -> None:
        if fingerprints(entry) != self.fingerprints[slot]:
            raise TapeError(
                f"an array that {entry[0].operation.name} saved at {listing.place(entry[-2:])} was "
                "written to since; give parameters new arrays (rebind), and copy arrays that you "
                "go on writing to before handing them to mg.asarray"
            )

    def _foreign_error(self) -> TapeError:
        return TapeError(
            "this target depends on a tensor that another tape recorded while this one was "
            "paused: write t.detach() where it enters"
        )

    # ---------------------------------------------------------------- looks

    def __len__(self) -> int:
        """The number of recorded results."""
        return self.mark() - self.start

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Entry]:
        """The entries, oldest first."""
        yield from (entry for _, entry in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Entry]]:
        """Every entry with the slot of its (first) result, oldest first."""
        before = None
        for i, entry in enumerate(islice(self.entries, self.start - self.first, None)):
            if entry is not None and entry is not before:
                yield self.start + i, Entry._make(entry)
            before = entry

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

    def summary(self) -> str:
        """Which operations and which lines the entries come from, and the bytes they hold.

        >>> import minigrad as mg
        >>> x = mg.tensor([1.0, 2.0], requires_grad=True)
        >>> with mg.Tape() as tape:
        ...     y = mg.tanh(x) * 2.0 + mg.tanh(-x)
        >>> print(tape.summary().partition("line")[0].rstrip())
        Tape: 5 results, 16 B held
        operation  results      holds
        tanh             2       16 B
        multiply         1        0 B
        negative         1        0 B
        add              1        0 B
        """
        return listing.summary(self)

    def warn_of_growth(self) -> None:
        """Say, once, that so many entries were recorded and none was read or cut."""
        warnings.warn(
            f"this tape holds {len(self.entries):,} results and was neither read nor cut: take "
            "the gradient, call tape.cut(), or leave the `with` block",
            stacklevel=3,
        )


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
    tape = active_tape.get()
    with nullcontext() if tape is None else tape.suspended():
        yield


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
        # A copy, since it may become a gradient that lives longer than the caller's array.
        seed = namespace(target.array).array(as_operand(seed), dtype=target.dtype)
    if seed.shape != target.shape or seed.dtype != target.dtype:
        raise ValueError(f"the seed of a {describe(target)} target is {describe(seed)}")
    return seed


def _gradients_of_results(
    first: int, entry: Any, gradients: dict[int, Any]
) -> tuple[Any, ...] | None:
    """Take the gradients of an operation's several results; zeros where there is none."""
    shapes, dtypes = entry[4:6]
    parts = [gradients.pop(first + i, None) for i in range(len(shapes))]
    some = next((part for part in parts if part is not None), None)
    if some is None:
        return None
    zeros = namespace(as_operand(some)).zeros
    for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
        if parts[i] is None:
            blank = zeros(shape, dtype)
            parts[i] = Tensor(blank) if isinstance(some, Tensor) else blank
    return tuple(parts)


def _saved_tensors(first: int, entry: Any, saved_as: type[Tensor]) -> list[Any]:
    """What the entry saved, with operands and results as Tensors at their old slots."""
    plan, operands, saved, *_ = entry
    operation = plan.operation

    def tensor(value: Any, slot: int) -> Any:
        return saved_as(value, slot) if is_array(value) else value

    def wrapped(value: Any, name: str) -> Any:
        if name in operation.operands:
            return tensor(value, operands[operation.operands.index(name)])
        if name in operation.variadic:
            return tuple(map(tensor, value, operands[-len(value) :]))
        if name == "out" and type(value) is tuple:  # an operation's several results
            return tuple(saved_as(array, first + i) for i, array in enumerate(value))
        return saved_as(value, first) if name == "out" else value

    return [wrapped(value, name) for value, name in zip(saved, plan.keep, strict=True)]


def _fitted(part: Any, shape: tuple[int, ...], dtype: DType, rule: Rule, entry: Any) -> Any:
    """The gradient in its operand's shape and dtype."""
    if part.shape != shape:
        part = _unbroadcast(part, shape, rule, entry)
    return part if part.dtype == dtype else _cast(part, dtype, rule, entry)


def _unbroadcast(part: Any, shape: tuple[int, ...], rule: Rule, entry: Any) -> Any:
    """Sum the gradient of a broadcast operand over the axes along which it was repeated."""
    # Only axes that broadcasting gave to the result may be summed away.
    result = entry[4]
    extra = len(part.shape) - len(shape)
    stretched = tuple(
        extra + axis
        for axis, length in enumerate(shape)
        if length == 1 and extra >= 0 and part.shape[extra + axis] != 1
    )
    axes = (*range(extra), *stretched)
    broadcast = len(part.shape) <= len(result) and all(part.shape[i] == result[i] for i in axes)
    if extra >= 0 and axes and broadcast:
        summed = part.sum(axis=axes, keepdims=True)
        if summed.shape[extra:] == shape:
            return summed.reshape(shape)
    raise TapeError(
        f"{_rule_of(rule, entry)} returned a gradient of shape {part.shape} for an operand of "
        f"shape {shape}, recorded at {listing.place(entry[-2:])}"
    )


def _cast(part: Any, dtype: DType, rule: Rule, entry: Any) -> Any:
    """The gradient in its operand's dtype, from which promotion had led away."""
    if part.dtype.kind != "f":
        raise TapeError(
            f"{_rule_of(rule, entry)} returned a gradient of {part.dtype} for an operand of "
            f"{dtype}, recorded at {listing.place(entry[-2:])}"
        )
    return part.astype(dtype)


def _check_gradient(part: Any, rule: Rule, entry: Any) -> None:
    subject = f"the gradient of {entry[0].operation.name} for {rule.operand}"
    check_finite(as_operand(part), subject, f"recorded at {listing.place(entry[-2:])}")


def _rule_of(rule: Rule, entry: Any) -> str:
    return f"the rule of {entry[0].operation.name} for {rule.operand}"


def users_frame(frame: FrameType) -> FrameType:
    """The innermost frame outside the engine: the one that a user would recognise."""
    inner = frame
    while in_engine[inner.f_code.co_filename]:
        if inner.f_back is None:
            return frame
        inner = inner.f_back
    return inner


def users_line(frame: FrameType) -> Line:
    """The user's line, for an entry."""
    frame = users_frame(frame)
    return frame.f_code, frame.f_lasti
