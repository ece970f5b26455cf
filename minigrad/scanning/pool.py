"""What is kept between two scans: plans by what the step does, and workspaces for some steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from threading import RLock, get_ident
from typing import Any
from weakref import ref

from minigrad.arrays import Array, make_array
from minigrad.scanning.gradients import are_alike, differentiated, with_gradients
from minigrad.scanning.passes import prepared
from minigrad.scanning.playing import Plan, Workspace
from minigrad.scanning.recording import Recording, Step, check_repeatable
from minigrad.scanning.scratch import scratch_nbytes
from minigrad.slots import CONSTANT, LEAF
from minigrad.tensor import Tensor

#: How many plans are kept.
PLANS = 256

_limit = 1 << 28
_held = 0
_plans: OrderedDict[Hashable, Plan] = OrderedDict()
_free: OrderedDict[Hashable, list[Workspace]] = OrderedDict()
#: Taken again by a scan that is let go, and gives back, while another is being served.
_lock = RLock()


def set_workspace_limit(nbytes: int) -> None:
    """Set how many bytes of arrays :func:`minigrad.scan` keeps between two calls (256 MiB).

    They are those in which its loops work, and what these share: fresh memory costs more than
    much arithmetic. What the tape still needs has no limit. 0 keeps nothing.

    Raises ``ValueError`` for a negative number.

    >>> import minigrad as mg
    >>> mg.set_workspace_limit(2**30)
    >>> mg.set_workspace_limit(2**28)
    """
    global _limit
    if nbytes < 0:
        raise ValueError(f"the limit is a number of bytes of at least 0, not {nbytes}")
    _limit = nbytes
    with _lock:
        _drop_beyond_limit()


def take(
    step: Step,
    recording: Recording,
    again: Callable[[], Iterator[Recording]],
    wanted: frozenset[int] | None,
    time: int,
    reverse: bool,
    device: str,
    xp: Any,
) -> Workspace:
    """A workspace for what was recorded, for so many steps.

    Args:
        step, recording: what was recorded.
        again: records it again, on other values; to see whether it does the same.
        wanted: the numbers of the inputs of which there is to be a gradient; ``None`` if there is
            to be none at all.
        time, reverse: how many steps are run, and whether from the last to the first.
        device, xp: those of the arrays.

    Raises ``ScanError`` if the step cannot be played.
    """
    global _held
    code = getattr(step, "__code__", type(step))  # what is remembered is of this step alone
    key = (code, recording.program.key(), wanted, device)
    with _lock:
        plan = _plans.get(key)
        if plan is not None and len(_plans) > PLANS // 2:  # while all have room no order matters
            _plans.move_to_end(key)
    if plan is None or not _does_the_same(plan, recording, wanted, device):
        sample = None
        for other in again():
            check_repeatable(recording, other)
            sample = sample or other
        plan = planned(recording, sample or recording, wanted, device)
        _remember(plan, recording)
        if sample is not None:
            with _lock:
                _plans[key] = plan
                if len(_plans) > PLANS:
                    _plans.popitem(last=False)
    elif time > 1 and not _remembers(plan, recording):
        check_repeatable(recording, next(again()))
        _remember(plan, recording)
    place = plan, time, reverse, get_ident()  # where it works belongs to its thread
    with _lock:
        free = _free.get(place)
        if free:
            workspace = free.pop()
            _held -= workspace.nbytes
            return workspace
    return Workspace(plan, time, reverse, place, device, xp)


def planned(
    recording: Recording, other: Recording, wanted: frozenset[int] | None, device: str
) -> Plan:
    """The plan of a step that was recorded twice; see :func:`take`."""
    constant = partial(_constant, device)
    program = prepared(recording.program, constant)
    if wanted is not None:
        program = differentiated(program, (recording.arrays, other.arrays), wanted)
    return Plan(program, constant, device)


def _does_the_same(
    plan: Plan, recording: Recording, wanted: frozenset[int] | None, device: str
) -> bool:
    """Whether operations of others do what they did when the plan was made."""
    if plan.is_own:
        return True
    program = prepared(recording.program, partial(_constant, device))
    if wanted is not None:
        program = with_gradients(program, recording.arrays, wanted)
    return are_alike(program, plan.source)


def _names(recording: Recording) -> tuple[int, ...]:
    """By what the tensors from outside the step are known again: constants, and leaves.

    Those that a tape has recorded are others in every call, and cannot be made in the step.
    """

    def name(tensor: Tensor) -> int:
        if tensor.slot == CONSTANT:
            return id(tensor.array)
        return tensor.slot if tensor.slot >= LEAF else 0

    return tuple(map(name, recording.outside))


def _remember(plan: Plan, recording: Recording) -> None:
    """Remember what the step was seen to use from outside every time."""
    if len(plan.outside) >= 64:
        plan.outside.clear()
    plan.outside[_names(recording)] = [ref(tensor.array) for tensor in recording.outside]


def _remembers(plan: Plan, recording: Recording) -> bool:
    """Whether it was. Other arrays may be made in the step: of random numbers, for one."""
    arrays = plan.outside.get(_names(recording))
    return arrays is not None and all(
        [
            tensor.slot != CONSTANT or array() is tensor.array
            for array, tensor in zip(arrays, recording.outside, strict=True)
        ]
    )


def _constant(device: str, numbers: Sequence[float], dtype: Any) -> Array:
    """An array of numbers on a device."""
    return make_array(numbers, dtype, device, copy=False)


def give_back(workspace: Workspace) -> None:
    """Keep a workspace for another scan."""
    global _held
    workspace.clear()
    with _lock:
        _free.setdefault(workspace.place, []).append(workspace)
        _free.move_to_end(workspace.place)
        _held += workspace.nbytes
        _drop_beyond_limit()


def held() -> int:
    """The bytes of the workspaces that are kept, and of what all workspaces share."""
    return _held + scratch_nbytes()


def _drop_beyond_limit() -> None:
    """Let go those that were used least recently."""
    global _held
    while _free and held() > _limit:
        place, free = next(iter(_free.items()))
        if free:
            _held -= free.pop(0).nbytes
        else:
            del _free[place]
