"""Playing a program: the stages of a step's program, for a number of steps, forwards and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

from minigrad.arrays import Array, small_products_are_fast
from minigrad.scanning import kernels
from minigrad.scanning.kernels import Steps, batched
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
        program: as it is played.
        forward, backward: the stages of both directions.
        states: pairs of what a step is given and leaves.
        seeds: the same of the gradients, from the last step to the first.
        saved: the forward values that the backward pass reads.

    ``constant`` makes arrays of numbers on the device.
    """

    def __init__(self, program: Program, constant: Constant, device: str) -> None:
        self._in_blocks = device == "cpu" and small_products_are_fast()
        sizes = [prod(program.kinds[number].shape) for number in program.states]
        self._calls_are_dear = device != "cpu" or max(sizes, default=0) < LARGE
        self.program = program = ready_to_play(program, constant, self._calls_are_dear)
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
        self.timed |= changing(rules, self.timed | seeds)
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
        return kernels.viewed(instruction, self.kinds) is not None

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

    :meth:`forward` leaves in them what :meth:`backward` needs, any number of times. What is
    needed in one of the two alone lies in memory that all workspaces share.
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
        self._forward = _Direction(plan.forward, plan.states)
        self._backward, self._retaining = (
            None if plan.backward is None else _Direction(plan.backward, plan.seeds)
            for _ in range(2)
        )
        #: The values of the run that is going on, by number.
        self._values: dict[int, Steps] = {}
        #: Those of them that lie in arrays of their own, made in this run.
        self._fresh: set[int] = set()
        #: What :meth:`forward` has left for :meth:`backward`.
        self._saved: dict[int, Steps] = {}

    def forward(
        self,
        xs: Sequence[Array],
        drawn: Sequence[Array],
        states: Sequence[Array],
        outside: Sequence[Array],
    ) -> tuple[list[Array], list[Array]]:
        """The ys of all steps, and the last state; xs and drawn are for all steps."""
        program, plan = self.plan.program, self.plan
        self.clear()
        timed = [*zip((*program.xs, *program.drawn), (*xs, *drawn), strict=True)]
        constant = [*zip(program.outside, outside, strict=False), *program.constants.items()]
        self._values |= {n: Steps(array, True) for n, array in timed}
        self._values |= {n: Steps(array, False) for n, array in constant}
        wanted = {*program.ys, *plan.saved}
        with running() as runner:
            last = self._loop(self._forward, runner, states, wanted)
            self._compute(self._forward.stages.after, wanted)
            ys = [self._own(number) for number in program.ys]
        self._saved = {number: self._values[number] for number in plan.saved}
        self._values.clear()
        return ys, last

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
        self._values = self._saved | dict(seeded)
        if not retain:
            self._saved = {}
        gradients = program.gradients
        # A state that is detached in every step has a gradient in the first alone.
        through = program.seeds_of_states()
        detached = [n for n in program.states if n in gradients and n not in through]
        each = {gradients[n] for n in (*program.xs, *detached) if n in gradients}
        sums = {gradients[n] for n in program.outside if n in gradients}
        first = [g.array for _, g in seeded if not g.timed]
        with running() as runner:
            last = self._loop(direction, runner, first, each | sums)
            totals = self._add_up(direction.stages.after, each, sums)
            found = dict(zip(through, last, strict=True))
            first_step = self._time - 1 if self._reverse else 0
            found |= {n: self._values[gradients[n]].at(first_step).copy() for n in detached}
            found |= {n: totals[gradients[n]] for n in program.outside if n in gradients}
            found |= {n: self._own(gradients[n]) for n in program.xs if n in gradients}
        self._values.clear()
        return found

    # ---------------------------------------------------------------- stages

    def _loop(
        self,
        direction: _Direction,
        runner: Hashable,
        first: Sequence[Array],
        wanted: set[int],
    ) -> list[Array]:
        """Run what comes before the loop, and the loop; what its last step has left."""
        values = self._values
        if direction.loop is None or direction.scratch.runner != runner:
            self._prepare(direction, runner, wanted)
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

    def _prepare(self, direction: _Direction, runner: Hashable, wanted: set[int]) -> None:
        """Find a place for everything in the loop, and for what is computed for it before."""
        stages, plan = direction.stages, self.plan
        made = {n for each in stages.loop for n in each.results}.union(*direction.carried)
        views = {n for each in stages.loop if plan.is_view(each) for n in each.results}
        ahead = {n for each in direction.ahead for n in each.results}
        entering = read_by(stages.loop) - made
        later = read_by(stages.after) | wanted
        direction.needed = later | entering
        direction.done = ahead - later
        direction.kept = (made - views | ahead & entering) & later
        given: dict[int, Steps] = {}
        spare = plan.timed & entering - later
        if direction is self._forward:
            self.nbytes = 0
            for other in (self._backward, self._retaining):
                if other is not None:
                    other.loop = None  # it reads the arrays that were there before
        else:
            assert self._forward.loop is not None
            given = {n: self._values[n] for n in self._forward.kept & plan.saved & entering}
            spare = spare.difference(given)
            if direction is self._backward:
                spare |= {n for n in given if n not in later and self._forward.loop.alone(n)}
        scratch = Scratch(runner, self._device, self._xp)
        lasting = plan.saved if direction is self._forward else set()

        def empty(steps: int, kind: Kind, values: Sequence[int]) -> Array:
            if lasting.isdisjoint(values):
                return scratch.empty(steps, kind)
            array = self._xp.empty((steps, *kind.shape), kind.dtype)
            self.nbytes += array.nbytes
            return array

        copied = entering.difference(given)
        loop = Loop(
            stages.loop,
            plan.kinds,
            self._time,
            given,
            copied,
            plan.timed,
            spare,
            direction.carried,
            direction.kept,
            self._reverse is not (direction is not self._forward),
            empty,
            self._xp,
        )
        direction.loop, direction.scratch = loop, scratch
        direction.copies = {number: loop.steps(number) for number in copied}
        direction.places = {n: direction.copies[n].array for n in ahead & copied}
        self._place_ahead(direction, wanted)

    def _place_ahead(self, direction: _Direction, wanted: set[int]) -> None:
        """Let what the loop reads be computed in its place, of operands that lie there already."""
        places, kinds = direction.places, self.plan.kinds
        reads = Counter([n for each in chain(*direction.stages) for n in each.reads])
        for each in reversed(direction.stages.before):
            (result, *_) = each.results
            for x in (each.operands[i] for i in kernels.may_overwrite(each) if result in places):
                alone = isinstance(x, Ref) and reads[x.number] == 1 and x.number not in wanted
                if alone and kinds[x.number] == kinds[result]:
                    places.setdefault(x.number, places[result])
                    break

    def clear(self) -> None:
        """Forget the values of the last run."""
        self._values.clear()
        self._fresh.clear()
        self._saved.clear()

    def _forget(self, numbers: Iterable[int]) -> None:
        """Let go the values that nobody reads any more."""
        for number in numbers:
            self._values.pop(number, None)

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
        #: Where the loop works, if there is one.
        self.scratch: Any = None
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
