"""Playing a program: the stages of a step's program, for a number of steps, forwards and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

from minigrad.arrays import Array
from minigrad.scanning import kernels
from minigrad.scanning.kernels import Steps, batched
from minigrad.scanning.loop import Loop
from minigrad.scanning.passes import (
    Stages,
    changing,
    read_by,
    ready_to_play,
    stages,
    with_products_in_blocks,
)
from minigrad.scanning.program import Instruction, Kind, Program, Ref

#: In a state of fewer elements a call costs more than what it computes: then what the backward
#: loop needs of the forward values alone is computed before it for all steps at once. In a larger
#: one it is computed in the loop, while the values are in the cache.
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
        program: as it is played.
        forward, backward: the stages of both directions.
        states: pairs of what a step is given and leaves.
        seeds: the same of the gradients, from the last step to the first.
        saved: the forward values that the backward pass reads.

    ``in_blocks`` is for a library in which small products are the faster ones.
    """

    def __init__(self, program: Program, in_blocks: bool) -> None:
        self._in_blocks = in_blocks
        sizes = [prod(program.kinds[number].shape) for number in program.states]
        self._small = max(sizes, default=0) < LARGE
        self.program = program = ready_to_play(program, with_factors_outside=self._small)
        self.kinds = [*program.kinds]
        steps = program.instructions[: program.forward]
        rules = program.instructions[program.forward :]
        given = [*program.xs, *program.drawn]
        left = self._carried(steps, program.states, program.new_states)
        self.states = [*zip(program.states, left, strict=True)]
        #: The values that are not the same at all steps.
        self.timed = changing(steps, [*given, *program.states])
        self.seeds: list[tuple[int, int]] = []
        self.saved: set[int] = set()
        self.backward = self._backward(steps, rules) if program.seeds else None
        needed = [*program.ys, *self.saved]
        self.forward = self._cut(
            stages(steps, self.is_view, lambda each: False, given, program.states, left, needed)
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
        self.timed |= changing(rules, self.timed | seeds)
        wanted = [g for n, g in program.gradients.items() if n not in through]
        found = self._cut(stages(rules, self.is_view, self._is_cheap, given, old, left, wanted))
        made = {n for each in chain(rules, *found) for n in each.results} | seeds
        self.saved = (read_by(chain(*found)) | set(wanted)) - made
        return found

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
        return kernels.viewed(instruction, self.kinds) is not None

    def _is_cheap(self, instruction: Instruction) -> bool:
        """Whether it takes less time in the loop, where its operands are in the cache."""
        return instruction.primitive in kernels.ELEMENTWISE and not self._small

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

    :meth:`forward` leaves in them what :meth:`backward` needs, any number of times.
    """

    def __init__(self, plan: Plan, time: int, reverse: bool, place: Hashable, xp: Any) -> None:
        self.plan = plan
        #: What it can be used for again.
        self.place = place
        #: The bytes of its arrays.
        self.nbytes = 0
        self._time = time
        self._reverse = reverse
        self._xp = xp
        self._forward = _Direction(plan.forward, plan.states)
        self._backward, self._retaining = (
            None if plan.backward is None else _Direction(plan.backward, plan.seeds)
            for _ in range(2)
        )
        #: All values of a run, by number.
        self._values: dict[int, Steps] = {}
        #: Those of them that lie in arrays of their own, made in this run.
        self._fresh: set[int] = set()

    def forward(
        self,
        xs: Sequence[Array],
        drawn: Sequence[Array],
        states: Sequence[Array],
        outside: Sequence[Array],
    ) -> tuple[list[Array], list[Array]]:
        """The ys of all steps, and the last state; xs and drawn are for all steps."""
        program, values = self.plan.program, self._values
        self.clear()
        values |= {n: Steps(array, False) for n, array in program.constants.items()}
        values |= {n: Steps(array, True) for n, array in zip(program.xs, xs, strict=True)}
        values |= {n: Steps(array, True) for n, array in zip(program.drawn, drawn, strict=True)}
        values |= {
            n: Steps(array, False) for n, array in zip(program.outside, outside, strict=False)
        }
        last = self._loop(self._forward, states, {*program.ys, *self.plan.saved})
        self._compute(self._forward.stages.after, {*program.ys, *self.plan.saved})
        return [self._own(number) for number in program.ys], last

    def backward(
        self, ys: Sequence[Array], states: Sequence[Array], retain: bool
    ) -> dict[int, Array]:
        """The gradients of what was given, by number, from those of ys and the last state.

        Without ``retain`` it may write to what :meth:`forward` has left.
        """
        program, direction = self.plan.program, self._retaining if retain else self._backward
        assert direction is not None
        self._fresh.clear()
        given = [Steps(g, True) for g in ys] + [Steps(g, False) for g in states]
        seeded = [
            (seed, g) for seed, g in zip(program.seeds, given, strict=True) if seed is not None
        ]
        self._values |= seeded
        gradients = program.gradients
        # A state that is detached in every step has a gradient in the first alone.
        through = program.seeds_of_states()
        detached = [n for n in program.states if n in gradients and n not in through]
        each = {gradients[n] for n in (*program.xs, *detached) if n in gradients}
        sums = {gradients[n] for n in program.outside if n in gradients}
        first = [g.array for _, g in seeded if not g.timed]
        last = self._loop(direction, first, each | sums)
        totals = self._add_up(direction.stages.after, each, sums)
        found = dict(zip(through, last, strict=True))
        first_step = self._time - 1 if self._reverse else 0
        found |= {n: self._values[gradients[n]].at(first_step).copy() for n in detached}
        for n in program.outside:
            if n in gradients:
                found[n] = totals[gradients[n]]
        for n in program.xs:
            if n in gradients:
                found[n] = self._own(gradients[n])
        return found

    # ---------------------------------------------------------------- stages

    def _loop(self, direction: _Direction, first: Sequence[Array], wanted: set[int]) -> list[Array]:
        """Run what comes before the loop, and the loop; what its last step has left."""
        values = self._values
        if direction.loop is None:
            self._prepare(direction, wanted)
        loop = direction.loop
        assert loop is not None
        self._compute(direction.ahead, direction.needed, direction.places)
        for number, steps in direction.copies.items():
            if values[number].array is not steps.array:
                steps.array[...] = values[number].array
        self._forget(direction.done)
        loop.run(first)
        values |= {number: loop.steps(number) for number in direction.kept}
        return [array.copy() for array in loop.left]

    def _prepare(self, direction: _Direction, wanted: set[int]) -> None:
        """Find a place for everything in the loop, and for what is computed for it before."""
        stages, carried = direction.stages, direction.carried
        made = {n for each in stages.loop for n in each.results}.union(*carried)
        views = {n for each in stages.loop if self.plan.is_view(each) for n in each.results}
        later = read_by(stages.after) | wanted
        direction.needed = later | read_by(stages.loop)
        ahead = {n for each in direction.ahead for n in each.results}
        direction.done = ahead - later
        direction.kept = (made - views) & later
        given: dict[int, Steps] = {}
        for number in read_by(stages.loop) - made:
            timed = number in self.plan.timed
            if number in self._forward.kept:
                given[number] = self._values[number]
            else:
                array = self._empty(self._time if timed else 1, self.plan.kinds[number])
                given[number] = Steps(array if timed else array[0, ...], timed)
                direction.copies[number] = given[number]
        places = direction.places
        places |= {n: given[n].array for n in ahead if n in given}
        reads = Counter([n for each in chain(*stages) for n in each.reads])
        for each in reversed(stages.before):
            (result, *_) = each.results
            for x in (each.operands[i] for i in kernels.may_overwrite(each) if result in places):
                alone = isinstance(x, Ref) and reads[x.number] == 1 and x.number not in wanted
                if alone and self.plan.kinds[x.number] == self.plan.kinds[result]:
                    places.setdefault(x.number, places[result])
                    break
        spare = [n for n, steps in direction.copies.items() if steps.timed]
        forward = self._forward.loop
        if direction is self._backward and forward is not None:
            spare += [n for n in given if n in self._forward.kept and forward.alone(n)]
        direction.loop = Loop(
            stages.loop,
            self.plan.kinds,
            self._time,
            given,
            set(spare) - later,
            carried,
            direction.kept,
            self._reverse is not (direction is not self._forward),
            self._empty,
            self._xp,
        )

    def clear(self) -> None:
        """Forget the values of the last run."""
        self._values.clear()
        self._fresh.clear()

    def _forget(self, numbers: Iterable[int]) -> None:
        """Let go the values that nobody reads any more."""
        for number in numbers:
            self._values.pop(number, None)

    def _empty(self, steps: int, kind: Kind) -> Array:
        """An array for so many steps."""
        array = self._xp.empty((steps, *kind.shape), kind.dtype)
        self.nbytes += array.nbytes
        return array

    def _compute(
        self,
        instructions: Sequence[Instruction],
        needed: set[int],
        places: Mapping[int, Array] | None = None,
    ) -> None:
        """The results of instructions, in their order, at all steps.

        ``needed`` are the values that are read afterwards; others may be written over. ``places``
        has arrays for some of the results.
        """
        values, kinds, fresh = self._values, self.plan.kinds, self._fresh
        places = places or {}
        last_use = {n: i for i, each in enumerate(instructions) for n in each.reads}
        made = {n for each in instructions for n in each.results}
        for i, each in enumerate(instructions):
            dead = [n for n in each.reads if last_use[n] == i and n in made and n not in needed]
            (result, *_) = each.results
            place = places.get(result)
            for x in (each.operands[p] for p in kernels.may_overwrite(each)):
                free = isinstance(x, Ref) and x.number in dead and x.number in fresh
                if place is None and free and kinds[x.number] == kinds[result]:
                    place = values[x.number].array
            found = batched(each, values.__getitem__, kinds, self._time, self._xp, place)
            values |= zip(each.results, found, strict=True)
            if self.plan.is_view(each):
                fresh.difference_update(each.reads)
            elif found[0].timed and result not in places:
                fresh.update(each.results)
            self._forget(dead)

    def _add_up(
        self, instructions: Sequence[Instruction], each: set[int], sums: set[int]
    ) -> dict[int, Array]:
        """Run what comes after the loop; the sums over all steps of the values ``sums``.

        A product is summed while it is computed, and a sum of products part by part, so that
        the gradient of a weight is never there for every step.
        """
        at_all_steps, summed = set(each), set(sums)
        for instruction in reversed(instructions):
            if not summed.isdisjoint(instruction.results):
                if self._adds(instruction):
                    summed.update(instruction.reads)
                elif self._is_summed_at_once(instruction):
                    at_all_steps.update(instruction.reads)
                else:
                    at_all_steps.update(instruction.results)
            if not at_all_steps.isdisjoint(instruction.results):
                at_all_steps.update(instruction.reads)
        totals: dict[int, Array] = {}
        adding = [i for i in instructions if not summed.isdisjoint(i.results)]
        self._compute(
            [i for i in instructions if not at_all_steps.isdisjoint(i.results)],
            each | sums | summed | read_by(adding),
        )
        turned = read_by([i for i in adding if i.primitive is kernels.TRANSPOSE])

        def total(number: int) -> Array:
            return totals[number] if number in totals else self._values[number].summed(self._time)

        for instruction in adding:
            found = self._total(instruction, total, not turned.isdisjoint(instruction.results))
            totals |= zip(instruction.results, found, strict=True)
        return {number: total(number) for number in sums}

    def _adds(self, instruction: Instruction) -> bool:
        """Whether the sum of the results is that of the operands' sums."""
        if self.plan.is_view(instruction):
            return True
        kinds = {self.plan.kinds[n] for n in (*instruction.reads, *instruction.results)}
        return (
            instruction.primitive in kernels.ADDING
            and len(kinds) == 1
            and all([isinstance(x, Ref) for x in instruction.operands])
        )

    def _is_summed_at_once(self, instruction: Instruction) -> bool:
        """Whether the sum over all steps takes no more than the values at one."""
        if instruction.primitive is kernels.MATMUL:
            return {len(self.plan.kinds[n].shape) for n in instruction.reads} == {2}
        return instruction.primitive is kernels.SUM

    def _total(
        self, instruction: Instruction, total: Callable[[int], Array], turned: bool
    ) -> Sequence[Array]:
        """The sums of an instruction's results over all steps.

        ``turned`` if their transposes are wanted: these have their rows in one piece then, as
        parameters do.
        """
        if self._adds(instruction):
            return kernels.computed(instruction, total)
        values = [self._values[x.number] for x in instruction.operands if isinstance(x, Ref)]
        if not self._is_summed_at_once(instruction):
            return [self._values[n].summed(self._time) for n in instruction.results]
        if instruction.primitive is kernels.MATMUL:
            a, b = values
            if turned:  # (A B)^T = B^T A^T
                return [kernels.summed_product(b.turned(), a.turned(), self._time).T]
            return [kernels.summed_product(a, b, self._time)]
        return [kernels.summed_sum(instruction, values[0], self.plan.kinds, self._time)]

    def _own(self, number: int) -> Array:
        """A value at all steps that the next run will not write to."""
        array, timed = self._values[number]
        if number in self._fresh:
            return array
        if not timed:
            array = self._xp.broadcast_to(array, (self._time, *array.shape))
        return array.copy("K")


class _Direction:
    """One of the two ways through the steps."""

    def __init__(self, stages: Stages, carried: Sequence[tuple[int, int]]) -> None:
        self.stages = stages
        self.carried = carried
        self.loop: Loop | None = None
        #: What is computed ahead of the loop; which values are needed after that, and which of
        #: the results only until the loop has its copies.
        self.ahead = [*stages.once, *stages.before]
        self.needed: set[int] = set()
        self.done: set[int] = set()
        #: The values of the loop that are wanted afterwards, at all steps.
        self.kept: set[int] = set()
        #: Where the loop finds values that are other arrays in every run.
        self.copies: dict[int, Steps] = {}
        #: Where results of what comes before the loop are computed.
        self.places: dict[int, Array] = {}
