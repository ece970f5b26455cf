"""Playing a program: the stages of a step's program, for a number of steps, forwards and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from math import prod
from typing import Any

from minigrad.arrays import Array, small_products_are_fast
from minigrad.scanning import kernels
from minigrad.scanning.batching import Batch, Schedule, Sums, Values
from minigrad.scanning.kernels import viewed
from minigrad.scanning.loop import Loop
from minigrad.scanning.passes import Constant, ready_to_play
from minigrad.scanning.program import Instruction, Kind, Program, Ref, changing, read_by
from minigrad.scanning.scratch import Scratch, running
from minigrad.scanning.stages import Stages, stages, with_products_in_blocks

#: In a state of fewer elements a call costs more than what it computes, and so it does on a GPU:
#: what can be computed for all steps at once is computed so. In a larger one it is computed in the
#: loop, while the values are in the cache, and may be computed twice rather than saved.
LARGE = 4096


#: The stages, in words.
STAGES = {
    "once": "once",
    "before": "for all steps, before the loop",
    "loop": "in the loop",
    "after": "for all steps, after the loop",
}


class Plan:
    """What can be known of a program before it is played.

    Attributes:
        source: the program of which it was made.
        is_own: whether that has operations of minigrad's alone.
        program: as it is played.
        forward, backward: the stages of both directions.
        states: pairs of what a step is given and leaves.
        seeds: the same of the gradients, from the last step to the first.
        saved: the forward values that the backward pass reads.
        outside: what was seen to come from outside the step; see :mod:`minigrad.scanning.pool`.

    ``constant`` makes arrays of numbers on the device.
    """

    def __init__(self, program: Program, constant: Constant, device: str) -> None:
        self._in_blocks = device == "cpu" and small_products_are_fast()
        sizes = [prod(program.kinds[number].shape) for number in program.states]
        self._calls_are_dear = device != "cpu" or max(sizes, default=0) < LARGE
        self.source, self.is_own = program, program.is_own
        self.outside: dict[tuple[int, ...], list[Any]] = {}
        self.program = program = ready_to_play(program, constant, self._calls_are_dear)
        self.kinds = [*program.kinds]
        steps = program.instructions[: program.forward]
        rules = program.instructions[program.forward :]
        given = [*program.xs, *program.drawn]
        left = self._carried(steps, program.states, program.new_states)
        self.states = [*zip(program.states, left, strict=True)]
        #: The values that are not the same at all steps, or are made at all steps nevertheless.
        self.timed = changing(steps, [*given, *program.states, *left])
        self.seeds: list[tuple[int, int]] = []
        self.saved: set[int] = set()
        self.backward = self._backward(steps, rules) if program.seeds else None
        needed = [*program.ys, *self.saved]
        self.forward = self._cut(
            stages(steps, self.is_view, self._is_cheap, given, program.states, left, needed)
        )

    def _backward(self, steps: list[Instruction], rules: list[Instruction]) -> Stages:
        """The stages of the gradient; sets what the backward pass starts from and needs."""
        program, through = self.program, self.program.seeds_of_states()
        rules = [each for each in steps if self.is_view(each)] + rules
        old = [*through.values()]
        left = self._carried(rules, old, [program.gradients.get(state) for state in through])
        self.seeds = [*zip(old, left, strict=True)]
        seeds = {seed for seed in program.seeds if seed is not None}
        given = self.timed | seeds.difference(old)
        self.timed |= changing(rules, self.timed.union(seeds, left))
        wanted = [g for n, g in program.gradients.items() if n not in through]

        def staged(rules: list[Instruction]) -> tuple[Stages, set[int]]:
            """The stages, and what they need of the forward values."""
            found = stages(rules, self.is_view, self._is_cheap, given, old, left, wanted)
            made = {n for each in rules for n in each.results} | seeds
            return found, (read_by(chain(*found)) | set(wanted)) - made

        found, saved = staged(rules)
        if not self._calls_are_dear:
            saved.update([new for old, new in self.states if old in saved])
            again = [
                each
                for each in steps
                if each.primitive in kernels.ELEMENTWISE
                and saved.issuperset([*each.reads, *each.results])
            ]
            found, saved = staged(again + rules)
        self.saved = saved
        return self._cut(found)

    def __str__(self) -> str:
        lines = [self.program.inputs()]
        for name, direction in (("forward", self.forward), ("backward", self.backward)):
            for stage, instructions in ({} if direction is None else direction._asdict()).items():
                if instructions:
                    lines.append(f"{name}, {STAGES[stage]}:")
                    lines += [f"    {each}" for each in instructions]
        return "\n".join([*lines, *self.program.outputs()])

    def _cut(self, found: Stages) -> Stages:
        return with_products_in_blocks(found, self.kinds, self.timed) if self._in_blocks else found

    def is_view(self, instruction: Instruction) -> bool:
        """Whether it computes nothing."""
        return viewed(instruction, self.kinds) is not None

    def _is_cheap(self, instruction: Instruction) -> bool:
        """Whether it takes less time in the loop, where its operands are in the cache."""
        from_outside = {*self.program.xs, *self.program.drawn}
        if self._calls_are_dear or not from_outside.isdisjoint(instruction.reads):
            return False
        if instruction.primitive is kernels.MATMUL:
            return self.kinds[instruction.results[0]].shape[-1:] == (1,)
        return instruction.primitive in kernels.CHEAP

    def _carried(
        self, instructions: list[Instruction], old: Sequence[int], new: Sequence[int | None]
    ) -> list[int]:
        """What is left to the next step, each in a place of its own: copied where it is not."""
        depends = set(old)
        own: set[int] = set()
        for each in instructions:
            if not depends.isdisjoint(each.reads):
                depends.update(each.results)
                own.update(() if self.is_view(each) else each.results)
        left: list[int] = []
        for before, after in zip(old, new, strict=True):
            if after is None or after not in own or after in left:
                self.kinds.append(self.kinds[before])
                source = 0.0 if after is None else Ref(after)
                instructions.append(
                    Instruction(kernels.COPY, (source,), {}, (len(self.kinds) - 1,))
                )
                after = len(self.kinds) - 1
            left.append(after)
        return left


class Workspace:
    """The arrays in which a plan is played, for one number of steps; one run at a time.

    :meth:`forward` leaves in them what :meth:`backward` needs, which says whether it retains it.
    What is needed in one of the two alone lies in memory that all workspaces share.
    """

    def __init__(
        self, plan: Plan, time: int, reverse: bool, place: Hashable, device: str, xp: Any
    ) -> None:
        self.plan = plan
        #: What it can be used for again.
        self.place = place
        #: The bytes of the arrays that are its own.
        self.nbytes = 0
        self._time = time
        self._reverse = reverse
        self._device = device
        self._xp = xp
        self._batch = Batch(plan.kinds, plan.timed, time, xp)
        self._forward: _Direction | None = None
        #: The backward pass, by whether it leaves what forward has left as it is.
        self._backward: dict[bool, _Direction] = {}
        #: What :meth:`forward` has left for :meth:`backward`.
        self._saved: Values = {}

    def forward(
        self,
        xs: Sequence[Array],
        drawn: Sequence[Array],
        states: Sequence[Array],
        outside: Sequence[Array],
    ) -> tuple[list[Array], list[Array]]:
        """The ys of all steps, and the last state; xs and drawn are for all steps."""
        program, plan = self.plan.program, self.plan
        values = dict(program.constants)
        values |= zip((*program.xs, *program.drawn), (*xs, *drawn), strict=True)
        values |= zip(program.outside, outside, strict=False)
        with running() as runner:
            if self._forward is None or self._forward.runner != runner:
                self._forward = self._forward_of(runner)
                self._backward.clear()  # it reads the arrays that were there before
            last, _ = self._forward.run(values, states)
            ys = [self._own(number, values, self._forward) for number in program.ys]
        self._saved = {number: values[number] for number in plan.saved}
        return ys, last

    def backward(
        self, ys: Sequence[Array], states: Sequence[Array], retain: bool
    ) -> dict[int, Array]:
        """The gradients of what was given, by number, from those of ys and the last state.

        Without ``retain`` it may write to what :meth:`forward` has left.
        """
        program, timed = self.plan.program, self.plan.timed
        through = program.seeds_of_states()
        pairs = zip(program.seeds, (*ys, *states), strict=True)
        values = self._saved | {seed: g for seed, g in pairs if seed is not None}
        if not retain:
            self._saved = {}
        first = [values[seed] for seed in through.values()]
        with running() as runner:
            direction = self._backward.get(retain)
            if direction is None or direction.runner != runner:
                direction = self._backward[retain] = self._backward_of(runner, values, retain)
            last, totals = direction.run(values, first)
            found = dict(zip(through, last, strict=True))
            for n, gradient in program.gradients.items():
                if n in program.outside:
                    found[n] = totals[gradient]
                elif n in program.xs:
                    found[n] = self._own(gradient, values, direction)
                elif n not in through:  # detached in every step, but for the first
                    array = values[gradient]
                    first_step = self._time - 1 if self._reverse else 0
                    found[n] = (array[first_step] if gradient in timed else array).copy()
        return found

    def clear(self) -> None:
        """Forget the values of the last run."""
        self._saved = {}

    def _forward_of(self, runner: Hashable) -> _Direction:
        plan, scratch = self.plan, Scratch(runner, self._device, self._xp)
        self.nbytes = 0

        def empty(steps: int, kind: Kind, values: Sequence[int]) -> Array:
            if plan.saved.isdisjoint(values):
                return scratch.empty(steps, kind)
            array = self._xp.empty((steps, *kind.shape), kind.dtype)
            self.nbytes += array.nbytes
            return array

        return _Direction(
            self._batch,
            plan.forward,
            plan.states,
            {*plan.program.ys, *plan.saved},
            set(),
            {},
            set(),
            self._reverse,
            scratch,
            empty,
        )

    def _backward_of(self, runner: Hashable, values: Values, retain: bool) -> _Direction:
        plan, forward, scratch = self.plan, self._forward, Scratch(runner, self._device, self._xp)
        assert plan.backward is not None
        assert forward is not None
        gradients, outside = plan.program.gradients, plan.program.outside
        through = plan.program.seeds_of_states()
        lasting = {n: values[n] for n in plan.saved.intersection(forward.kept)}
        return _Direction(
            self._batch,
            plan.backward,
            plan.seeds,
            {g for n, g in gradients.items() if n not in outside and n not in through},
            {g for n, g in gradients.items() if n in outside},
            lasting,
            set() if retain else {n for n in lasting if forward.loop.alone(n)},
            not self._reverse,
            scratch,
            lambda steps, kind, values: scratch.empty(steps, kind),
        )

    def _own(self, number: int, values: Values, direction: _Direction) -> Array:
        """A value at all steps that the next run will not write to."""
        array = values[number]
        if number in direction.fresh:
            return array
        if number not in self.plan.timed:
            array = self._xp.broadcast_to(array, (self._time, *array.shape))
        return array.copy("K")


class _Direction:
    """One of the two ways through the steps, and the arrays in which it is run.

    Args:
        batch: what is known of the values.
        stages: what is computed.
        carried: pairs of what a step is given and leaves.
        wanted, sums: the values that are wanted of all steps, and those whose sums are.
        given: values that are the same arrays in every run.
        spare: those of them that may be overwritten.
        backwards: whether the steps are run from the last to the first.
        scratch: where it works.
        empty: makes an array for a number of steps, in which these values are to lie.
    """

    def __init__(
        self,
        batch: Batch,
        stages: Stages,
        carried: Sequence[tuple[int, int]],
        wanted: set[int],
        sums: set[int],
        given: Values,
        spare: set[int],
        backwards: bool,
        scratch: Scratch,
        empty: Callable[[int, Kind, Sequence[int]], Array],
    ) -> None:
        ahead = [*stages.once, *stages.before]
        made_ahead = {n for each in ahead for n in each.results}
        views = [each for each in stages.loop if viewed(each, batch.kinds) is not None]
        made = {n for each in stages.loop for n in each.results}.union(*carried)
        entering = read_by(stages.loop) - made
        later = read_by(stages.after) | wanted | sums
        given = {n: array for n, array in given.items() if n in entering}
        copied = entering.difference(given)
        #: The values of the loop that are wanted afterwards.
        self.kept = later & (
            made.difference(*[each.results for each in views]) | made_ahead & copied
        )
        self.loop = loop = Loop(
            stages.loop,
            batch.kinds,
            batch.time,
            given,
            copied,
            batch.timed,
            {n for n in entering - later if n in (spare if n in given else batch.timed)},
            carried,
            self.kept,
            backwards,
            empty,
            batch.xp,
        )
        self._scratch = scratch
        # Where the loop finds values that are other arrays in every run, or are computed there.
        self._copies = {n: loop.steps(n) for n in copied}
        self._left = {n: loop.steps(n) for n in self.kept}
        self._done = made_ahead - later
        places = {n: self._copies[n] for n in made_ahead & copied}
        _place_operands(stages, places, wanted | sums, batch.kinds)
        self._ahead = Schedule(batch, ahead, later | entering, places=places)
        self._after = Sums(batch, stages.after, wanted, sums, self._ahead.fresh)

    @property
    def runner(self) -> Hashable:
        """Who may run it."""
        return self._scratch.runner

    @property
    def fresh(self) -> set[int]:
        """The values that lie in arrays of their own, made in the run."""
        return self._after.schedule.fresh

    def run(self, values: Values, first: Sequence[Array]) -> tuple[list[Array], dict[int, Array]]:
        """Add to the values what is wanted of them; what the last step leaves, and the sums."""
        self._ahead.run(values)
        for number, array in self._copies.items():
            if values[number] is not array:
                array[...] = values[number]
        for number in self._done.intersection(values):
            del values[number]
        self.loop.run(first)
        values |= self._left
        totals = self._after.run(values)
        return [array.copy() for array in self.loop.left], totals


def _place_operands(
    stages: Stages, places: Values, wanted: set[int], kinds: Sequence[Kind]
) -> None:
    """Let what is computed in a place be computed of operands that lie there already."""
    reads = Counter([n for each in chain(*stages) for n in each.reads])
    made = {n for each in stages.before for n in each.results}
    for each in reversed(stages.before):
        (result, *_) = each.results
        for x in (each.operands[i] for i in kernels.may_overwrite(each) if result in places):
            free = isinstance(x, Ref) and x.number in made - wanted and reads[x.number] == 1
            if free and kinds[x.number] == kinds[result]:
                places.setdefault(x.number, places[result])
                break
