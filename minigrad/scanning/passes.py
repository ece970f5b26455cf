"""What is done to a program before it is played: each pass makes another program of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from minigrad.arrays import Array
from minigrad.primitive import Primitive
from minigrad.scanning import kernels
from minigrad.scanning.program import Instruction, Kind, Program, Ref, frozen


def prepared(program: Program, constant: Constant) -> Program:
    """The program of a step, in the form in which it is differentiated."""
    program = without_repeats(with_products(program))
    program = without_dead(with_neighbours_joined(program))
    return with_gates(program, constant)


def ready_to_play(program: Program, with_factors_outside: bool) -> Program:
    """The differentiated program, in the form in which it is played; see :func:`with_factors`."""
    program = without_repeats(program)
    if with_factors_outside:
        program = with_factors(program)
    program = without_repeats(with_scaled_weights(program))
    return with_rows_spread(program)


def with_products(program: Program) -> Program:
    """``linear(x, W, b)`` as  x W^T  and  + b,  since the product may be wanted elsewhere."""
    edit = _Edit(program)
    for each in program.instructions:
        if each.primitive is kernels.LINEAR:
            x, weight, bias = each.operands
            shape, dtype = program.kinds[weight.number]
            made: list[Instruction] = []
            kind = Kind(shape[::-1], dtype)
            across = edit.instruction(kernels.TRANSPOSE, (weight,), kind, made, axes=None)
            product = edit.instruction(
                kernels.MATMUL, (x, across), program.kinds[each.results[0]], made
            )
            made.append(Instruction(kernels.ADD, (product, bias), {}, each.results))
            edit.replaced[each] = made
    return edit.done()


def without_repeats(program: Program) -> Program:
    """What is computed twice from the same is computed once."""
    edit = _Edit(program)
    same: dict[int, int] = {}
    made: dict[Any, tuple[int, ...]] = {}

    def renamed(part: Any) -> Any:
        if isinstance(part, Ref):
            return replace(part, number=same.get(part.number, part.number))
        return tuple(map(renamed, part)) if isinstance(part, tuple) else part

    for old in program.instructions:
        operands = renamed(old.operands)
        settings = {name: renamed(value) for name, value in old.settings.items()}
        key = old.primitive, frozen(operands), frozen(settings)
        if key in made:
            same |= zip(old.results, made[key], strict=True)
            edit.replaced[old] = []
        else:
            made[key] = old.results
            edit.replaced[old] = [Instruction(old.primitive, operands, settings, old.results)]
    return replace(
        edit.done(),
        ys=[same.get(n, n) for n in program.ys],
        new_states=[same.get(n, n) for n in program.new_states],
        gradients={n: same.get(g, g) for n, g in program.gradients.items()},
    )


#: Makes an array of numbers, of a dtype, where the program is to be played.
Constant = Callable[[Sequence[float], Any], Array]


class _Uses:
    """Who makes and who reads every value of a program."""

    def __init__(self, program: Program) -> None:
        self.maker = {n: each for each in program.instructions for n in each.results}
        self.readers: dict[int, list[Instruction]] = {}
        for each in program.instructions:
            for n in each.reads:
                self.readers.setdefault(n, []).append(each)
        self._returned = {*program.ys, *program.new_states, *program.gradients.values()}

    def only_reader(self, number: int) -> Instruction | None:
        """Who reads a value, if one instruction does and nobody else."""
        readers = self.readers.get(number, ())
        return readers[0] if len(readers) == 1 and number not in self._returned else None

    def only_once(self, operand: Ref) -> bool:
        """Whether a value is read by one instruction alone."""
        return self.only_reader(operand.number) is not None


class _Edit:
    """A program that is being changed: new values, and instructions in the place of others."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.kinds = [*program.kinds]
        self.constants = dict(program.constants)
        self.replaced: dict[Any, list[Instruction]] = {}

    def value(self, kind: Kind) -> int:
        """A new value's number."""
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def instruction(
        self,
        primitive: Primitive,
        operands: tuple[Any, ...],
        kind: Kind,
        made: list[Instruction],
        **settings: Any,
    ) -> Ref:
        """Add an instruction to ``made``; its result."""
        result = self.value(kind)
        made.append(Instruction(primitive, operands, settings, (result,)))
        return Ref(result)

    def constant(self, array: Array) -> Ref:
        """A value that is the same at every step, and in every call."""
        number = self.value(Kind(array.shape, array.dtype))
        self.constants[number] = array
        return Ref(number)

    def done(self) -> Program:
        """The changed program."""
        instructions, forward = self.program.instructions, self.program.forward
        halves = [
            [new for old in half for new in self.replaced.get(old, [old])]
            for half in (instructions[:forward], instructions[forward:])
        ]
        return replace(
            self.program,
            kinds=self.kinds,
            constants=self.constants,
            instructions=halves[0] + halves[1],
            forward=len(halves[0]),
        )


def without_dead(program: Program) -> Program:
    """What nobody reads is not computed."""
    edit = _Edit(program)
    needed = {*program.ys, *program.new_states, *program.gradients.values()}
    for each in reversed(program.instructions):
        if needed.isdisjoint(each.results):
            edit.replaced[each] = []
        else:
            needed.update(each.reads)
    return edit.done()


def with_neighbours_joined(program: Program) -> Program:
    """The same operation on neighbouring parts of the same values is done to both at once."""
    while True:
        pair = _neighbours(program)
        if pair is None:
            return program
        program = _joined(program, *pair)


#: A part of a value: the instruction that splits it, and which of the parts it is.
_Part = tuple[Instruction, int]


def _neighbours(program: Program) -> tuple[Instruction, Instruction, list[_Part | None]] | None:
    """Two instructions that can be joined, and the parts that the first one reads."""
    parts: dict[int, _Part] = {}
    seen: dict[Any, tuple[Instruction, list[_Part | None]]] = {}
    for each in program.instructions:
        if each.primitive is kernels.SPLIT:
            last = len(program.kinds[each.operands[0].number].shape) - 1
            if each.settings["axis"] == last:
                parts |= {n: (each, i) for i, n in enumerate(each.results)}
        elif each.primitive in kernels.ELEMENTWISE and not each.settings:
            refs = [x for x in each.operands if isinstance(x, Ref)]
            if not all([x.number in parts and not x.detached for x in refs]):
                continue
            # Of one width, and of each split one part: what is joined fits together then.
            splits = {parts[x.number][0] for x in refs}
            widths = {program.kinds[x.number].shape[-1] for x in refs}
            if len(widths) != 1 or len(splits) != len({x.number for x in refs}):
                continue
            read = [parts[x.number] if isinstance(x, Ref) else None for x in each.operands]
            plain = tuple([None if isinstance(x, Ref) else frozen(x) for x in each.operands])
            for ahead in (1, -1):
                beside = tuple([(split, i - ahead) for split, i in filter(None, read)])
                first = seen.get((each.primitive, plain, beside))
                if first is not None:
                    pair = (first[0], each) if ahead == 1 else (each, first[0])
                    return *pair, first[1] if ahead == 1 else read
            seen[each.primitive, plain, tuple(filter(None, read))] = each, read
    return None


def _joined(
    program: Program, left: Instruction, right: Instruction, read: list[_Part | None]
) -> Program:
    """The program with two such instructions as one."""
    edit = _Edit(program)

    def together(one: int, other: int) -> tuple[int, Instruction]:
        """A value that two make up, and the instruction that splits it into them."""
        (shape, dtype), (more, _) = edit.kinds[one], edit.kinds[other]
        ends = (0, shape[-1], shape[-1] + more[-1])
        whole = edit.value(Kind((*shape[:-1], ends[-1]), dtype))
        settings = {"bounds": ends, "axis": len(shape) - 1}
        return whole, Instruction(kernels.SPLIT, (Ref(whole),), settings, (one, other))

    operands: list[Any] = []
    for x, part in zip(left.operands, read, strict=True):
        if part is None:
            operands.append(x)
            continue
        split, i = part
        if split not in edit.replaced:
            one, other = split.results[i : i + 2]
            whole, again = together(one, other)
            bounds = split.settings["bounds"]
            settings = split.settings | {"bounds": (*bounds[: i + 1], *bounds[i + 2 :])}
            results = (*split.results[:i], whole, *split.results[i + 2 :])
            edit.replaced[split] = [
                Instruction(kernels.SPLIT, split.operands, settings, results),
                again,
            ]
        operands.append(edit.replaced[split][1].operands[0])
    result, again = together(left.results[0], right.results[0])
    first, second = sorted((left, right), key=program.instructions.index)
    edit.replaced[first] = [Instruction(left.primitive, tuple(operands), {}, (result,)), again]
    edit.replaced[second] = []
    return edit.done()


def with_gates(program: Program, constant: Constant) -> Program:
    """Sigmoids and tanhs of all parts of a value become one operation on the whole.

    ``constant`` makes arrays of numbers.
    """
    uses = _Uses(program)
    edit = _Edit(program)
    for split in program.instructions:
        if split.primitive is not kernels.SPLIT:
            continue
        (whole,) = split.operands
        kind = program.kinds[whole.number]
        squashes = [uses.only_reader(n) for n in split.results]
        if split.settings["axis"] == len(kind.shape) - 1 and all(
            [
                each is not None
                and each.primitive in kernels.SQUASHING
                and not each.operands[0].detached
                for each in squashes
            ]
        ):
            widths = [stop - start for start, stop in pairwise(split.settings["bounds"])]
            scales = [kernels.SQUASHING[each.primitive] for each in squashes if each is not None]
            scale = [x for x, width in zip(scales, widths, strict=True) for _ in range(width)]
            vectors = (
                edit.constant(constant(scale, kind.dtype)),
                edit.constant(constant([1.0 - x for x in scale], kind.dtype)),
            )
            made: list[Instruction] = []
            gates = edit.instruction(kernels.SQUASH, (whole, *vectors), kind, made)
            results = tuple([each.results[0] for each in squashes if each is not None])
            made.append(Instruction(kernels.SPLIT, (gates,), split.settings, results))
            edit.replaced |= {each: [] for each in squashes}
            # The parts may be read before the last of them was computed.
            edit.replaced[split] = made
    return edit.done()


def with_scaled_weights(program: Program) -> Program:
    """scale tanh(scale z) + shift,  where the inner scale is multiplied into what z is made of."""
    uses = _Uses(program)
    edit = _Edit(program)
    for each in program.instructions[: program.forward]:
        if each.primitive is kernels.SQUASH:
            z, scale, shift = each.operands
            kind = program.kinds[each.results[0]]
            made: list[Instruction] = []
            t = edit.instruction(kernels.TANH, (_scaled(z, scale, uses, edit, made),), kind, made)
            out = edit.instruction(kernels.MULTIPLY, (t, scale), kind, made)
            made.append(Instruction(kernels.ADD, (out, shift), {}, each.results))
            edit.replaced[each] = made
    return edit.done()


def _scaled(operand: Ref, scale: Ref, uses: _Uses, edit: _Edit, made: list[Instruction]) -> Ref:
    """The operand with its columns scaled: a sum or product is made of scaled operands."""
    kind = edit.kinds[operand.number]
    maker = uses.maker.get(operand.number) if uses.only_once(operand) else None

    def is_wide(x: Any) -> bool:
        """Whether it has all columns, not broadcast along them, and can be scaled in its dtype."""
        shape, dtype = edit.kinds[x.number] if isinstance(x, Ref) else ((), None)
        return (shape[-1:], dtype) == edit.kinds[scale.number]

    if maker is not None and maker.primitive is kernels.ADD and all(map(is_wide, maker.operands)):
        terms = tuple([_scaled(x, scale, uses, edit, made) for x in maker.operands])
        return edit.instruction(kernels.ADD, terms, kind, made)
    if maker is not None and maker.primitive is kernels.MATMUL:
        x, weight = maker.operands
        if len(edit.kinds[weight.number].shape) == 2 and is_wide(weight):
            weight = _scaled(weight, scale, uses, edit, made)
            return edit.instruction(kernels.MATMUL, (x, weight), kind, made)
    return edit.instruction(kernels.MULTIPLY, (operand, scale), kind, made)


def with_factors(program: Program) -> Program:
    """In the gradient  x - x y  becomes  x (1 - y),  and  (x y) z  becomes  x (y z).

    That is done where x alone depends on the step after: the factor can then be computed for all
    steps at once.
    """
    uses = _Uses(program)
    edit = _Edit(program)
    depends = set(program.seeds_of_states().values())
    #: What is x times a factor, as such.
    products: dict[int, tuple[Ref, Ref]] = {}
    for each in program.instructions[program.forward :]:
        if depends.isdisjoint(each.reads):
            continue
        depends.update(each.results)
        kind = program.kinds[each.results[0]]
        operands = [x for x in each.operands if isinstance(x, Ref) and edit.kinds[x.number] == kind]
        if len(operands) != 2 or len(each.operands) != 2:
            continue
        made: list[Instruction] = []
        x, other = operands
        readers = 1
        if (
            each.primitive is kernels.SUBTRACT
            and uses.only_once(other)
            and other.number in products
        ):
            inner, factor = products[other.number]
            if inner != x:
                continue
            factor = edit.instruction(kernels.SUBTRACT, (1.0, factor), kind, made)
            readers = 2  # the product is the other one
        elif each.primitive is kernels.MULTIPLY and len(depends & {x.number, other.number}) == 1:
            x, factor = (x, other) if x.number in depends else (other, x)
        else:
            continue
        if x.number in products and len(uses.readers[x.number]) == readers:
            x, before = products[x.number]
            factor = edit.instruction(kernels.MULTIPLY, (before, factor), kind, made)
        products[each.results[0]] = x, factor
        made.append(Instruction(kernels.MULTIPLY, (x, factor), {}, each.results))
        edit.replaced[each] = made
    return edit.done()


def with_rows_spread(program: Program) -> Program:
    """A vector that meets every row of what changes with time is spread out before.

    NumPy computes with two whole arrays twice as fast as with an array and a row.
    """
    edit = _Edit(program)
    seeds = [seed for seed in program.seeds if seed is not None]
    given = [*program.xs, *program.drawn, *program.states, *seeds]
    timed = changing(program.instructions, given)
    wide: dict[Any, Ref] = {}
    for each in program.instructions:
        if each.primitive not in kernels.UFUNCS or timed.isdisjoint(each.results):
            continue
        shape = program.kinds[each.results[0]].shape
        made: list[Instruction] = []

        def spread(x: Any, made: list[Instruction] = made, shape: Any = shape) -> Any:
            own = program.kinds[x.number] if isinstance(x, Ref) else None
            if own is None or x.number in timed or own.shape == shape or prod(own.shape) == 1:
                return x
            key = x.number, shape
            if key not in wide:
                kind = Kind(shape, own.dtype)
                wide[key] = edit.instruction(kernels.BROADCAST, (x,), kind, made, shape=shape)
            return wide[key]

        operands = tuple([spread(x) for x in each.operands])
        made.append(Instruction(each.primitive, operands, each.settings, each.results))
        edit.replaced[each] = made
    return edit.done()


class Stages(NamedTuple):
    """Instructions by when they are run, each in an order in which they can be."""

    #: Once, since they depend on nothing that changes with time.
    once: list[Instruction]
    #: For all steps at once, before the loop.
    before: list[Instruction]
    #: Step by step: what the next step depends on.
    loop: list[Instruction]
    #: For all steps at once, after the loop.
    after: list[Instruction]


def stages(
    instructions: Sequence[Instruction],
    is_view: Callable[[Instruction], bool],
    in_loop: Callable[[Instruction], bool],
    timed: Iterable[int],
    carried: Iterable[int],
    carried_on: Iterable[int],
    wanted: Iterable[int],
) -> Stages:
    """Sort the instructions of one direction into stages; what nobody wants is left out.

    Args:
        is_view: whether an instruction only looks at its operand: it is then repeated in every
            stage that needs it.
        in_loop: whether to run an instruction in the loop that could be run before it.
        timed: the values that are given at every step, and do not depend on the step before.
        carried: the values that the step before has left.
        carried_on: the values that are left to the next step.
        wanted: the values that are wanted besides.
    """
    level = dict.fromkeys(timed, 1) | dict.fromkeys(carried, 2)
    for each in instructions:
        highest = max([level.get(n, 0) for n in each.reads], default=0)
        level |= dict.fromkeys(each.results, highest)

    def is_of(*levels: int) -> Callable[[Instruction], bool]:
        return lambda each: level[each.results[0]] in levels

    def runs_in_loop(each: Instruction) -> bool:
        if each.primitive is kernels.COPY or is_of(2)(each):
            return True
        return is_of(1)(each) and (is_view(each) or in_loop(each))

    computed: set[int] = set()

    def stage(belongs: Callable[[Instruction], bool], needed: Iterable[int]) -> list[Instruction]:
        """Those that belong here, are needed, and are not computed by a stage before."""
        needs = set(needed)
        found = []
        for each in reversed(instructions):
            if needs.isdisjoint(each.results) or not computed.isdisjoint(each.results):
                continue
            if belongs(each):
                found.append(each)
                needs.update(each.reads)
        computed.update(n for each in found if not is_view(each) for n in each.results)
        return found[::-1]

    loop = stage(runs_in_loop, carried_on)
    before = stage(is_of(1), read_by(loop))
    after = stage(is_of(1, 2), wanted)
    once = stage(is_of(0), read_by([*before, *loop, *after]) | set(wanted))
    return Stages(once, before, loop, after)


def with_products_in_blocks(found: Stages, kinds: list[Kind], timed: set[int]) -> Stages:
    """Stages whose loop multiplies by a matrix that is the same at all steps block by block.

    See :func:`minigrad.scanning.kernels.size_of_blocks`; new values are added to ``kinds``.
    """
    once, loop = [*found.once], []
    cut: dict[Any, Ref] = {}
    for each in found.loop:
        size = None
        if each.primitive is kernels.MATMUL and each.operands[1].number not in timed:
            x, matrix = each.operands
            shapes, dtype = [kinds[n].shape for n in each.reads], kinds[matrix.number].dtype
            if [len(shape) for shape in shapes] == [2, 2] and dtype in ("float32", "float64"):
                inner, columns = shapes[1]
                size = kernels.size_of_blocks(shapes[0][0], inner, columns)
        if size is None:
            loop.append(each)
            continue
        rows, width = size
        if (matrix.number, width) not in cut:
            apart, blocks = Ref(len(kinds)), Ref(len(kinds) + 1)
            shape = inner, columns // width, 1, width
            kinds += [Kind(shape, dtype), Kind((columns // width, 1, inner, width), dtype)]
            once += [
                Instruction(kernels.RESHAPE, (matrix,), {"shape": shape}, (apart.number,)),
                Instruction(kernels.TRANSPOSE, (apart,), {"axes": (1, 2, 0, 3)}, (blocks.number,)),
            ]
            cut[matrix.number, width] = blocks
        operands, settings = (x, cut[matrix.number, width]), {"rows": rows, "columns": width}
        loop.append(Instruction(kernels.matmul_in_blocks, operands, settings, each.results))
    return found._replace(once=once, loop=loop)


def read_by(instructions: Iterable[Instruction]) -> set[int]:
    """The values that instructions read."""
    return {number for each in instructions for number in each.reads}


def changing(instructions: Iterable[Instruction], given: Iterable[int]) -> set[int]:
    """The values that are given at every step, and those that are made of them."""
    found = set(given)
    for each in instructions:
        if not found.isdisjoint(each.reads):
            found.update(each.results)
    return found
