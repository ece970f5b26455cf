"""Scan: a step recorded once and played, against the loop of Python that it stands for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Barrier, Thread
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from random_steps import Case, Step, gated_steps, leaf, leaf_of, steps_of_any_operations

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.containers import leaves_of, map_leaves
from minigrad.scanning import playing, pool
from minigrad.scanning.playing import Workspace
from minigrad.testing import check_gradients

TIME, BATCH, WIDTH = 5, 2, 4


def loop(step: Step, state: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """What is to come out."""
    ys: list[Any] = []
    time = leaves_of(xs)[0].shape[0]
    for t in range(time)[:: -1 if reverse else 1]:
        y, state = step(map_leaves(lambda name, part: part[t], xs), state)  # noqa: B023
        ys.append(y)
    if reverse:
        ys.reverse()
    columns = iter([mg.stack(each) for each in zip(*map(leaves_of, ys), strict=True)])
    return map_leaves(lambda name, part: next(columns), ys[0]), state


def derivatives(
    run: Callable[..., tuple[Any, Any]], step: Step, state: Any, xs: Any, sources: Sequence[Tensor]
) -> list[np.ndarray]:
    """Values, and the first and second order of a function of all of them."""
    with mg.Tape() as tape:
        results = leaves_of(run(step, state, xs))
        rng = np.random.default_rng(7)
        loss = sum(
            (part * part * mg.tensor(rng.normal(size=part.shape))).sum()
            for part in (*results, *sources)
            if part.dtype == "float64"
        )
        plain = tape.gradient(loss, sources, retain=True, unconnected="zero")
        first = tape.gradient(loss, sources, create_graph=True, unconnected="zero")
        second = tape.gradient(sum((g * g).sum() for g in first), sources, unconnected="zero")
    return [part.numpy() for part in (*results, *plain, *first, *second)]


def assert_is_the_loop(
    step: Step, state: Any, xs: Any, *parameters: Tensor, rtol: float = 1e-11, atol: float = 1e-12
) -> None:
    given = [*leaves_of(xs), *leaves_of(state), *parameters]
    sources = [tensor for tensor in given if tensor.requires_grad]
    for reverse in (False, True):

        def run(f: Any) -> Any:
            return lambda *args: f(*args, reverse=reverse)  # noqa: B023

        played = derivatives(run(mg.scan), step, state, xs, sources)
        looped = derivatives(run(loop), step, state, xs, sources)
        for ours, theirs in zip(played, looped, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


# --------------------------------------------------------------------------------------
# The same as the loop
# --------------------------------------------------------------------------------------

w = leaf(seed=1)
W = leaf(WIDTH, WIDTH, seed=2)
u, V = leaf(WIDTH, seed=12), leaf(BATCH, WIDTH, seed=13)
table = leaf(6, WIDTH, seed=3)
h0 = leaf(BATCH, WIDTH, seed=4)
sequence = leaf(TIME, BATCH, WIDTH, seed=5)
numbers = leaf(TIME, seed=6)
tokens = mg.tensor(np.random.default_rng(0).integers(0, 6, (TIME, BATCH)))
last_axis: Any = np.int64(1)
classes = mg.tensor([[1, 1], [0, 3], [2, 2], [3, 0], [1, 1]])


def weighted_sum(x: Any, h: Any) -> Any:
    return w * h + x, w * h + x


def elman(x: Any, h: Any) -> Any:
    h = mg.tanh(x + h @ W)
    return h, h


def with_a_readout(x: Any, h: Any) -> Any:
    h = mg.tanh(x + h @ W)
    return mg.softmax(h @ table.T), h


def of_tokens(token: Any, h: Any) -> Any:
    h = mg.sigmoid(table[token] + h @ W)
    return {"sum": h.sum(axis=-1), "best": mg.argmax(h, axis=-1)}, h


def with_a_memory(token: Any, state: Any) -> Any:
    h, memory = state
    weights = mg.softmax(h @ memory.T)
    h = mg.tanh(weights @ memory + table[token])
    return (h[:, :2], weights), (h, memory)


def counting(x: Any, state: Any) -> Any:
    h, n = state
    n = n + 1
    h = mg.tanh(h @ W) * mg.where(n > 2, 1.0, 0.5) + x
    return h, (h, n)


def reshaping(x: Any, h: Any) -> Any:
    y = mg.stack([x, h], axis=1).mean(axis=1)
    y = mg.concatenate([y[:, :1], mg.relu(y[:, 1:])], axis=1)
    z = mg.where(y > 0.1, y, 2.0 * y).reshape((-1, 2)).T.reshape((BATCH, WIDTH))
    return z, 0.5 * z + mg.max(z, axis=1, keepdims=True)


def gated(x: Any, h: Any) -> Any:
    """Parts that are squashed alike, neighbours of two values, and one that is not squashed."""
    a, b, c, d = mg.split(h @ W, 4, axis=-1)
    e, f, g, k = mg.split(x, 4, axis=-1)
    z = mg.concatenate([mg.sigmoid(a + e), mg.sigmoid(b + f), mg.tanh(c + g), d - k], axis=-1)
    return z, z


def with_parts_of_two_widths(x: Any, h: Any) -> Any:
    """And a part that meets two others, and a number that stands on either side."""
    a, b, c, d = mg.split(h, 4, axis=-1)
    e, f = mg.split(x, 2, axis=-1)
    return (a * e, b * f, a * b, b * c, 1.0 - c, d - 1.0), mg.tanh(x + h)


def with_whole_numbers(x: Any, h: Any) -> Any:
    """Beside gates, and in their weights."""
    a, b = mg.split(h + x["counts"], 2, axis=-1)
    c, d = mg.split(h @ mg.tensor(np.arange(16).reshape(WIDTH, WIDTH)), 2, axis=-1)
    gates = mg.sigmoid(a), mg.tanh(b), mg.tanh(c), mg.sigmoid(d)
    return gates, 0.1 * mg.tanh(h + x["floats"])


def normalised(x: Any, h: Any) -> Any:
    h = (h @ W) + x
    centred = h - h.mean(axis=-1, keepdims=True)
    return h, centred / mg.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)


def of_classes(token: Any, h: Any) -> Any:
    h = mg.tanh(h @ W)
    return (
        nn.nll_loss(mg.log_softmax(h), token, reduction="none"),
        nn.cross_entropy(h, token, token != 1, label_smoothing=0.1, reduction="sum"),
        nn.cross_entropy(h, token, mg.tensor([1.0, 0.5])),
    ), h


def at_positions(token: Any, h: Any) -> Any:
    picked = mg.take_along_axis(h, mg.stack([token, mg.minimum(token, 2)], axis=1), -1)
    h = mg.set_at(h @ W, (slice(None), token), picked)
    return mg.take(table, token, axis=0), mg.tanh(mg.take(h, token[0], axis=1)[:, None] * h)


STEPS: dict[str, tuple[Any, ...]] = {
    "numbers": (weighted_sum, leaf(seed=8), numbers, w),
    "elman": (elman, h0, sequence, W),
    "a readout": (with_a_readout, h0, sequence, W, table),
    "tokens": (of_tokens, h0, tokens, W, table),
    "a memory": (with_a_memory, (h0, leaf(5, WIDTH, seed=9)), tokens, table),
    "a counter": (counting, (h0, mg.tensor(0)), sequence, W),
    "other shapes": (reshaping, h0, sequence),
    "gates": (gated, h0, sequence, W),
    "normalised": (normalised, h0, sequence, W),
    "parts of two widths": (with_parts_of_two_widths, h0, sequence),
    "whole numbers": (
        with_whole_numbers,
        h0,
        {"floats": sequence, "counts": mg.tensor(np.arange(40).reshape(TIME, BATCH, WIDTH) % 3)},
    ),
    "zeros of both signs": (
        lambda x, h: ((mg.arctan2(0.0 * h, -1.0), mg.arctan2(-0.0 * h, -1.0)), h),
        leaf_of(np.abs(h0.numpy())),
        sequence,
    ),
    "not a number": (
        lambda x, h: (mg.where(x > h, float("nan"), mg.tensor(np.full(WIDTH, np.nan))), h * x),
        h0,
        sequence,
    ),
    "constant x": (elman, h0, sequence.detach(), W),
    "constant state": (elman, h0.detach(), sequence, W),
    "classes": (of_classes, h0, classes, W),
    "classes at one step": (of_classes, h0, classes[:1], W),
    "positions": (at_positions, h0, classes, W, table),
    "numbers for conditions": (
        lambda x, h: (mg.where(x["n"], h, w), mg.where(x["floats"], mg.where(2.5, h, x["n"]), 0.5)),
        h0,
        {"n": mg.minimum(tokens, 1)[..., None], "floats": mg.tensor(np.floor(sequence.numpy()))},
        w,
    ),
    "other gradients": (
        lambda x, h: (
            mg.scale_gradient(h, -0.5) * h,
            mg.tanh(mg.map_gradient(h, lambda g: -g) @ W + 0.5 * h + x),
        ),
        h0,
        sequence,
        W,
    ),
    "products of nothing": (
        lambda x, h: (mg.tanh(h @ W) + x @ mg.tensor(np.zeros((0, WIDTH))), h),
        h0,
        leaf(TIME, BATCH, 0),
        W,
    ),
    "a view of what is read once more": (
        lambda x, h: ((a := mg.exp(x))[:, ::-1] * mg.sin(a), mg.tanh(x + h)),
        h0,
        sequence,
    ),
    "parts that are wanted": (
        lambda x, h: ((a := mg.sin(h[:, :1])), mg.concatenate([a, mg.tanh(x + h)[:, 1:]], axis=-1)),
        h0,
        sequence,
    ),
    "numbers of numpy": (
        lambda x, h: (
            (h / np.sqrt(2.0) - np.float64(0.5)).reshape(np.int64(-1)),
            mg.softmax(h * np.float32(0.5) + x, axis=last_axis),
        ),
        h0,
        sequence,
    ),
    "nothing": (lambda x, h: (x, h), h0, sequence),
    "a delay": (lambda x, h: (h, x), h0, sequence),
    "a swap": (lambda x, s: (s[0] * s[1], (s[1], s[0] + x)), (h0, h0), sequence),
    "the same for ever": (lambda x, h: (w * 1.0, W[0] * w), leaf(WIDTH), sequence, w, W),
    "a parameter": (lambda x, h: (h * x, u), leaf(WIDTH), sequence, u),
    "a constant": (lambda x, h: ((u.detach(), h), u.detach()), leaf(WIDTH), sequence, u),
    "one step with a product of parameters": (
        lambda x, h: ((a := mg.tanh(V)) @ W, mg.tanh(a * h + x)),
        h0,
        leaf(1, BATCH, WIDTH, seed=11),
        V,
        W,
    ),
    "no y": (lambda x, h: ((), mg.tanh(x + h)), h0, sequence),
    "y twice": (lambda x, h: ((h, h), mg.tanh(x + h)), h0, sequence),
    "several x": (
        lambda x, h: (x["a"] * h, mg.tanh(h + x["b"][0])),
        h0,
        {"a": sequence, "b": (leaf(TIME, WIDTH, seed=10),)},
    ),
    "a detached y": (lambda x, h: (mg.tanh(h + x).detach(), mg.tanh(h @ W)), h0, sequence, W),
    "a detached state": (lambda x, h: (h * x, mg.tanh(x + h @ W).detach()), h0, sequence, W),
    "all detached": (lambda x, h: (mg.exp(h.detach()), h.detach() * 1.0), h0, sequence),
    "detached inside": (lambda x, h: (h, mg.tanh(x + h.detach() @ W) * h), h0, sequence, W),
    "rounded": (lambda x, h: (h, mg.tanh(x * mg.round(h) + h @ W)), h0, sequence, W),
    "one weight in many places": (
        lambda x, h: (h @ W.T, mg.tanh(x @ W + h @ W - (h * w) @ W.T)),
        h0,
        sequence,
        W,
        w,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_values_and_two_orders_of_gradients_are_those_of_the_loop(name: str) -> None:
    assert_is_the_loop(*STEPS[name])


@pytest.mark.parametrize("time", [1, 2, 3])
def test_few_steps(time: int) -> None:
    assert_is_the_loop(gated, h0, leaf(time, BATCH, WIDTH), W)

    def delayed(x: Any, state: Any) -> Any:
        a, b, c = state
        return (c * c, u * x), (mg.tanh(u * x), a, b)

    assert_is_the_loop(delayed, (h0.detach(),) * 3, leaf(time, BATCH, WIDTH).detach(), u)


@contextmanager
def states_are_large() -> Iterator[None]:
    """What can be computed in the loop or outside of it is computed in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playing, "LARGE", 0)
        patch.setattr(pool, "_plans", type(pool._plans)())
        patch.setattr(pool, "_free", type(pool._free)())
        patch.setattr(pool, "_held", 0)
        yield


@pytest.mark.parametrize("name", STEPS)
def test_of_large_states_they_are_those_of_the_loop(name: str) -> None:
    with states_are_large():
        assert_is_the_loop(*STEPS[name])


@pytest.mark.parametrize("name", STEPS)
def test_without_a_tape_the_values_are_the_same(name: str) -> None:
    step, state, xs, *_ = STEPS[name]
    pairs = zip(*[leaves_of(run(step, state, xs)) for run in (mg.scan, loop)], strict=True)
    for played, looped in pairs:
        np.testing.assert_allclose(played.numpy(), looped.numpy(), rtol=1e-12, atol=1e-13)


@given(case=gated_steps() | steps_of_any_operations())
def test_any_step(case: Case) -> None:
    assert_is_the_loop(*case, rtol=1e-9, atol=1e-9)


@given(case=gated_steps() | steps_of_any_operations())
def test_any_step_with_a_large_state(case: Case) -> None:
    with states_are_large():
        assert_is_the_loop(*case, rtol=1e-9, atol=1e-9)


def test_it_passes_the_gradient_check() -> None:
    def f(state: Tensor, xs: Tensor, weight: Tensor) -> Any:
        return mg.scan(lambda x, h: (mg.tanh(h @ weight), mg.sigmoid(x + h @ weight)), state, xs)

    check_gradients(f, h0, sequence, W)


def test_random_numbers_are_those_of_the_loop() -> None:
    found = []
    for run in (mg.scan, loop):
        drop, other = nn.Dropout(0.5, rng=0), nn.Dropout(0.2, rng=1)

        def step(x: Any, h: Any) -> Any:
            h = mg.tanh(drop(x) + other(h @ W))  # noqa: B023
            return drop(h), h  # noqa: B023

        found.append(derivatives(run, step, h0, sequence, [h0, sequence, W]))
        found[-1].append(np.array([drop.rng.random(), other.rng.random()]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_float32_stays_float32() -> None:
    xs, state = mg.tensor(sequence.numpy(), "float32"), mg.tensor(h0.numpy(), "float32")
    weight = mg.tensor(W.numpy(), "float32", requires_grad=True)
    with mg.Tape() as tape:
        ys, last = mg.scan(lambda x, h: (mg.sigmoid(x + h @ weight),) * 2, state, xs)
    assert ys.dtype == last.dtype == tape.gradient(last, weight, seed=state).dtype == "float32"


# --------------------------------------------------------------------------------------
# On the tape
# --------------------------------------------------------------------------------------


def test_it_is_one_entry_that_says_what_it_is_and_holds() -> None:
    with mg.Tape() as tape:
        mg.scan(elman, h0, sequence)
        assert len(tape) == 2  # ys and the last state
        assert "scan(leaf a, leaf b, leaf c, run=elman)" in str(tape)
        assert str(tape).splitlines()[2].endswith("mg.scan(elman, h0, sequence)")
    assert tape.nbytes >= TIME * BATCH * WIDTH * 8


def test_its_gradient_may_come_from_a_rule_that_begins_with_a_number() -> None:
    found = []
    for run in (mg.scan, loop):
        with mg.Tape() as tape:
            ys, _ = run(elman, h0, sequence)
            found.append(tape.gradient(mg.where(True, ys, 0.0).sum(), W).numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_what_nothing_leads_to_that_wants_a_gradient_is_constant() -> None:
    with mg.Tape() as tape:
        (ys, others), last = mg.scan(lambda x, h: ((h, u * x), 0.5 * h), h0.detach(), sequence)
        assert (ys.requires_grad, others.requires_grad, last.requires_grad) == (False, True, False)
        slope = tape.gradient((others * ys).sum(), u, create_graph=True)
        assert tape.gradient(slope.sum(), sequence).shape == sequence.shape


def test_without_a_tape_there_is_nothing_to_differentiate() -> None:
    ys, last = mg.scan(elman, h0, sequence)
    assert not ys.requires_grad
    assert not last.requires_grad
    np.testing.assert_allclose(ys.numpy(), loop(elman, h0, sequence)[0].numpy(), atol=1e-14)


def test_a_cut_between_two_scans_makes_the_first_a_constant() -> None:
    found = []
    for run in (mg.scan, loop):
        with mg.Tape() as tape:
            _, state = run(elman, h0, sequence)
            mark = tape.mark()
            ys, _ = run(elman, state, sequence)
            tape.cut(mark)
            found.append(tape.gradient(ys.sum(), W).numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_several_scans_of_the_same_step_do_not_disturb_each_other() -> None:
    found = []
    for run in (mg.scan, loop):
        with mg.Tape() as tape:
            state, ys = h0, sequence
            for _ in range(3):
                ys, state = run(elman, state, ys)
            first = tape.gradient(ys.sum(), [W, h0, sequence], retain=True)
            again = tape.gradient(ys.sum() + state.sum(), [W, h0, sequence])
        found.append([g.numpy() for g in (*first, *again)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_the_gradient_is_that_of_the_values_that_were_used() -> None:
    weight = mg.tensor(W.numpy(), requires_grad=True)

    def step(x: Any, h: Any) -> Any:
        return h, mg.tanh(x + h @ weight)

    with mg.Tape() as tape:
        _, last = mg.scan(step, h0, sequence)
        exact = tape.gradient(last.sum(), weight, retain=True)
        weight.rebind(2.0 * weight.detach())
        np.testing.assert_array_equal(
            tape.gradient(last.sum(), weight, retain=True).numpy(), exact.numpy()
        )
        graph = tape.gradient(last.sum(), weight, create_graph=True)
    np.testing.assert_allclose(graph.numpy(), exact.numpy(), rtol=1e-12)


def test_a_program_is_used_again_with_other_tensors_and_another_function() -> None:
    def step_with(weight: Tensor) -> Step:
        return lambda x, h: (h, mg.tanh(x + h @ weight))

    for seed in range(3):
        weight = leaf(WIDTH, WIDTH, seed=seed)
        assert_is_the_loop(step_with(weight), h0, sequence, weight)


def test_a_function_that_a_step_uses_is_its_code_and_where_that_looks_for_names() -> None:
    for scale in (2.0, 3.0):
        module: dict[str, Any] = {"scale": scale}
        exec("def scaled(g): return scale * g", module)
        scaled = module["scaled"]
        assert_is_the_loop(lambda x, h: (h, mg.map_gradient(0.1 * h + x, scaled)), h0, sequence)  # noqa: B023


def test_checkpoints_and_forward_mode() -> None:
    def f(weight: Tensor) -> Tensor:
        ys, _ = mg.scan(lambda x, h: (h, mg.tanh(x + h @ weight)), h0.detach(), sequence.detach())
        return (ys * ys).sum()

    exact = mg.grad(f)(W).numpy()
    np.testing.assert_allclose(mg.grad(mg.checkpoint(f))(W).numpy(), exact, rtol=1e-12)
    _, slope = mg.jvp(f, (W,), (mg.tensor(np.ones((WIDTH, WIDTH))),))
    np.testing.assert_allclose(slope.item(), exact.sum(), rtol=1e-11)


def test_debug_finds_the_operation_of_the_step() -> None:
    def step(x: Any, h: Any) -> Any:
        return h, mg.log(h - 100.0)

    found = pytest.raises(FloatingPointError, match=r"the result of log, .*test_scan\.py")
    with np.errstate(invalid="ignore"), found, mg.debug(), mg.Tape():
        mg.scan(step, h0, sequence)


def test_threads() -> None:
    expected = derivatives(loop, elman, h0, sequence, [W])
    found: list[list[np.ndarray]] = []

    def work() -> None:
        with mg.device(W.device):
            for _ in range(5):
                found.append(derivatives(mg.scan, elman, h0, sequence, [W]))

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for each in found:
        for ours, theirs in zip(each, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_a_thread_finds_the_workspace_that_it_has_used_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, make = [], Workspace._forward_of

    def make_and_count(*args: Any) -> Any:
        made.append(args)
        return make(*args)

    monkeypatch.setattr(Workspace, "_forward_of", make_and_count)

    def scan() -> None:
        mg.scan(lambda x, h: (h, mg.sinh(0.1 * h) + x), h0, sequence)

    scan()
    thread = Thread(target=scan)
    thread.start()
    thread.join()
    scan()
    assert len(made) == 2


def test_two_threads_in_the_middle_of_the_same_scan() -> None:
    barrier, starts = Barrier(2), [h0, -0.5 * h0]
    threads: list[Thread] = []

    @mg.primitive
    def meet(x: Any, /) -> Any:
        if threads:
            barrier.wait(timeout=20)
        return x.copy()

    def step(x: Any, h: Any) -> Any:
        h = mg.tanh(x + meet(h @ W))
        return h, h

    expected = [mg.scan(step, h, sequence) for h in starts]
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        found[i] = mg.scan(step, starts[i], sequence)

    threads += [Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        for ours, theirs in zip(found[i], expected[i], strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_the_gradient_may_be_computed_in_another_thread() -> None:
    sources, found = [h0, sequence, W], []
    with mg.Tape() as tape:
        ys, last = mg.scan(elman, h0, sequence)
        loss = (ys * ys).sum() + last.sum()
    thread = Thread(target=lambda: found.extend(tape.gradient(loss, sources, retain=True)))
    thread.start()
    for _ in range(20):
        mg.scan(elman, -h0, -sequence)
    thread.join()
    for one, other in zip(found, tape.gradient(loss, sources), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_what_is_made_in_a_step_is_looked_at_again_though_its_program_is_known() -> None:
    rng = np.random.default_rng(0)

    def step(x: Any, h: Any, noise: Any) -> Any:
        return h, mg.tanh(h + x + noise)

    constant = mg.tensor(rng.normal(size=WIDTH))
    for _ in range(2):
        mg.scan(lambda x, h: step(x, h, constant), h0, sequence)
        mg.scan(lambda x, h: step(x, h, mg.tensor(np.ones(WIDTH))), h0, sequence)
        with pytest.raises(mg.ScanError, match="does the same every time that it is called"):
            mg.scan(lambda x, h: step(x, h, mg.tensor(rng.normal(size=WIDTH))), h0, sequence)
        pair = leaf(WIDTH, seed=1), leaf(WIDTH, seed=2)
        for weight in pair:
            mg.scan(lambda x, h: step(x, h, weight), h0, sequence)  # noqa: B023
        weights = iter(4 * pair)
        with pytest.raises(mg.ScanError, match="does the same every time that it is called"):
            mg.scan(lambda x, h: step(x, h, next(weights)), h0, sequence)  # noqa: B023


def test_several_results_may_be_one_array() -> None:
    @mg.primitive
    def pair(x: Any, /) -> Any:
        y = x * 2.0
        return y, y

    pair.rules(x=lambda g: g[0] * 2.0 + g[1] * 2.0)

    def step(x: Any, h: Any) -> Any:
        a, b = pair(0.1 * h)
        return a * x, mg.tanh(b)

    assert_is_the_loop(step, h0, sequence)


class Point(NamedTuple):
    a: int
    b: Any


def test_settings_stay_what_they_are() -> None:
    seen: list[Any] = []

    @mg.primitive
    def noting(x: Any, /, setting: Any) -> Any:
        seen.append(setting)
        return x * 2.0

    noting.rules(x=lambda g: g * 2.0)
    index = mg.tensor(np.arange(BATCH)).array
    for setting in ([1, 2], (1, 2), Point(1, [2]), {"a": [index]}, {1, 2}, partial(max, 1)):
        seen.clear()
        with mg.Tape():
            mg.scan(lambda x, h: (h, noting(0.1 * h, setting=setting)), h0, sequence)  # noqa: B023
        assert {type(each) for each in seen} == {type(setting)}
        assert repr(seen[-1]) == repr(setting)


def test_a_function_may_have_variables_of_its_own() -> None:
    class Scaled:
        scale = 1.0

        def step(self, x: Any, h: Any) -> Any:
            h = mg.map_gradient(h, lambda g: g * self.scale)
            return h, mg.tanh(mg.map_gradient(h, partial(mg.multiply, 0.5)) + x)

    scaled = Scaled()
    for scaled.scale in (0.1, 0.5, 0.1):
        assert_is_the_loop(scaled.step, h0, sequence)


def test_random_numbers_are_where_they_were_when_a_step_is_refused() -> None:
    drop = nn.Dropout(0.5, rng=0)
    before = drop.rng.bit_generator.state
    with pytest.raises(mg.ScanError):
        mg.scan(lambda x, h: (h, drop(h) * float(x.sum())), h0, sequence)
    assert drop.rng.bit_generator.state == before


def test_a_step_may_scan_something_itself() -> None:
    drop = nn.Dropout(0.5, rng=0)

    def inner(x: Any, h: Any) -> Any:
        h = drop(mg.tanh(h @ W + x))
        return h, h

    def step(x: Any, h: Any) -> Any:
        ys, h = mg.scan(inner, h, mg.stack([x, 0.5 * x, u * x]))
        others, _ = mg.scan(lambda x, y: (x * h, y), u, V)  # which knows h alone
        _, p = mg.scan(lambda x, y: (y, mg.tanh(y * x)), u, V)  # and nothing of this step
        return ys.sum(axis=0) + others.sum(axis=0), h * p

    found = []
    for run in (mg.scan, loop):
        drop.rng = np.random.default_rng(0)
        found.append(derivatives(run, step, h0, sequence, [h0, sequence, W, u, V]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_what_is_not_recorded_is_constant_and_not_the_same_at_every_step() -> None:
    def step(x: Any, h: Any) -> Any:
        with mg.no_grad():
            best = mg.argmax(x * h, axis=-1)
            scale = mg.tanh(h @ W)
        return mg.take_along_axis(h, best[:, None], -1), mg.tanh(scale * h + x) @ W

    assert_is_the_loop(step, h0, sequence, W)


def test_a_new_tensor_of_numbers_without_gradient_is_not_the_same_at_every_step() -> None:
    def step(token: Any, h: Any) -> Any:
        copy = mg.asarray(token)
        return copy, mg.tanh(h @ W + mg.tensor(copy, "float64")[:, None])

    assert_is_the_loop(step, h0, tokens, W)
    makes: list[Any] = [
        *(mg.tensor, mg.asarray, lambda h: nn.mse_loss(h, h, mask=h)),
        lambda h: nn.mse_loss(h, h, mask=V * 1.0),
    ]
    for make in makes:
        with mg.Tape(), pytest.raises(mg.TapeError, match="silently drop"):
            mg.scan(lambda x, h: (make(h), h), h0, sequence)  # noqa: B023


def test_what_a_step_knows_without_x_and_the_state_may_be_looked_at() -> None:
    weight = leaf_of(np.eye(WIDTH))

    def step(x: Any, h: Any) -> Any:
        norm = (weight * weight).sum()
        h = mg.tanh(h @ weight) / norm if norm.item() > 2.0 else h @ weight
        return h + float(norm), x + h * norm.array

    for factor in (0.5, 4.0):
        weight.rebind(factor * weight.array)
        assert_is_the_loop(step, h0, sequence)


def test_a_rule_that_reads_a_variable_gives_the_gradient_of_what_it_is_now() -> None:
    scale = 1.0

    @mg.primitive
    def scaled(x: Any, /) -> Any:
        return 1.0 * x

    scaled.rules(x=lambda g: g * scale)

    def mapped(g: Any) -> Any:
        return g * mg.tensor(np.full(WIDTH, scale))

    steps: list[Step] = [
        lambda x, h: (h, scaled(0.5 * h) + x),
        lambda x, h: (h, mg.map_gradient(0.5 * h, mapped) + x),
    ]
    for scale in (1.0, 2.0, 1.0, -3.0):  # noqa: B007
        for step in steps:
            assert_is_the_loop(step, h0, sequence)


def test_an_operation_in_a_step_may_compute_with_tensors() -> None:
    @mg.primitive
    def inner(x: Any, /) -> Any:
        with mg.Tape() as tape:
            y = mg.tanh(mg.tensor(x) @ W).sum()
        return x * tape.gradient(y, W)[0].array

    inner.rules(x=lambda g, x: g * inner(x) / x)

    def step(x: Any, h: Any) -> Any:
        return h, mg.tanh(inner(h) + x)

    for ours, theirs in zip(mg.scan(step, h0, sequence), loop(step, h0, sequence), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


def test_an_operation_in_a_step_may_scan_something_itself() -> None:
    @mg.primitive
    def inner(x: Any, /) -> Any:
        return mg.scan(elman, mg.tensor(x), sequence)[1].array

    def step(x: Any, h: Any) -> Any:
        z = h @ W
        return z * x, mg.tanh(z + inner(h) + x)

    for ours, theirs in zip(mg.scan(step, h0, sequence), loop(step, h0, sequence), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


@pytest.mark.usefixtures("empty_pool")
def test_the_gradient_of_a_scan_within_another_may_be_computed_after_it() -> None:
    tapes: list[Any] = []

    def total_of(xs: Tensor) -> Any:
        with mg.no_grad(), mg.Tape() as tape:
            return tape, mg.scan(elman, h0, xs)[1].sum()

    @mg.primitive
    def inner(x: Any, /) -> Any:
        tapes.append(total_of(sequence))
        return x.copy()

    with states_are_large():  # whose gradients read what the forward loop has left where it is
        others = [total_of(leaf(TIME, BATCH, WIDTH, seed=9)) for _ in range(TIME + 2)]
        for tape, total in others:
            tape.gradient(total, W)
        others.clear()  # their workspaces are used by those inside
        mg.scan(lambda x, h: ((), inner(h @ W)), h0, sequence)
        found = [tape.gradient(total, W) for tape, total in tapes]
    with mg.Tape() as tape:
        expected = tape.gradient(loop(elman, h0, sequence)[1].sum(), W)
    for each in found:
        np.testing.assert_allclose(each.numpy(), expected.numpy(), rtol=1e-12)


# --------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------


@pytest.fixture
def empty_pool() -> None:
    mg.set_workspace_limit(0)
    mg.set_workspace_limit(1 << 28)
    assert pool._held == 0


@pytest.mark.usefixtures("empty_pool")
def test_a_workspace_is_kept_and_used_again(no_collector: None) -> None:
    with mg.Tape() as tape:
        _, last = mg.scan(elman, h0, sequence)
        assert pool._held == 0
        tape.gradient(last.sum(), W)
    held = pool._held
    assert held > 0
    for _ in range(3):
        with mg.Tape() as tape:
            _, last = mg.scan(elman, h0, sequence)
            tape.gradient(last.sum(), W)
    assert pool._held == held
    with mg.Tape():  # never read
        mg.scan(elman, h0, sequence)
        mg.scan(elman, h0, sequence)
    gc.collect()
    assert pool._held > held


@pytest.mark.usefixtures("empty_pool")
def test_no_more_is_kept_than_the_limit() -> None:
    try:
        mg.set_workspace_limit(0)
        mg.scan(elman, h0, sequence)
        others = pool.held()  # of scans that are still on a tape
        one = 8 * (TIME + 1) * BATCH * WIDTH
        mg.set_workspace_limit(others + 20 * one)
        for time in range(1, 30):
            with mg.Tape():
                mg.scan(elman, h0, leaf(time, BATCH, WIDTH))
            assert pool.held() <= others + 20 * one
        assert pool.held() > others + 10 * one
        mg.set_workspace_limit(0)
        assert pool.held() == others
    finally:
        mg.set_workspace_limit(1 << 28)
    with pytest.raises(ValueError, match="at least 0, not -1"):
        mg.set_workspace_limit(-1)


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


def branches(x: Any, h: Any) -> Any:
    return (h, h + x) if h.sum() > 0 else (h, h)


LOOKING: dict[str, Step] = {
    "bool": branches,
    "float": lambda x, h: (h, h * float(x[0, 0])),
    "item": lambda x, h: (h, h * x.sum().item()),
    "numpy": lambda x, h: (h, h + mg.tensor(x.numpy())),
    "int": lambda x, h: (h, h * int(h[0, 0])),
    "tolist": lambda x, h: (h, h * x.tolist()[0][0]),
    "in": lambda x, h: (h, h * (1.0 in x)),
    "np.asarray": lambda x, h: (h, h + mg.tensor(np.asarray(x))),
    "array": lambda x, h: (h, mg.where(mg.tensor(x.array > 0.0), h, x)),
    "the array of a constant": lambda x, h: (h, h + (x > 0.0).array),
}


@pytest.mark.parametrize("name", LOOKING)
def test_a_step_that_looks_at_values_is_refused_with_its_line(name: str) -> None:
    with pytest.raises(
        mg.ScanError, match=r"cannot look at the values of a tensor \(.*test_scan\.py:\d+.*mg.where"
    ):
        mg.scan(LOOKING[name], h0, sequence)


def without_being_seen(x: Any) -> Any:
    """A tensor of the values of another, of which the program knows nothing."""
    found = []

    @mg.primitive
    def look(x: Any, /) -> Any:
        found.append(x.copy())
        return x

    look(x)
    return mg.tensor(found[0])


def with_an_array() -> Step:
    return lambda x, h: (h, h + x * without_being_seen(x))


def with_other_random_numbers() -> Step:
    rng = np.random.default_rng(0)
    return lambda x, h: (h, h + x * mg.tensor(rng.normal(size=(BATCH, WIDTH))))


def with_a_counter() -> Step:
    calls: list[int] = []

    def step(x: Any, h: Any) -> Any:
        calls.append(1)
        return h, h + float(len(calls)) * x

    return step


@pytest.mark.parametrize("make", [with_an_array, with_other_random_numbers, with_a_counter])
def test_a_step_that_does_something_else_every_time_is_refused(make: Callable[[], Step]) -> None:
    with mg.Tape(), pytest.raises(mg.ScanError, match="does the same every time that it is called"):
        mg.scan(make(), h0, sequence)


@pytest.mark.parametrize(
    "xs",
    [
        tokens[[0, 1, 0]],
        tokens[:1],
        mg.tensor(np.full((3, BATCH), 2)),
        mg.tensor(np.zeros((3, BATCH), int)),
        mg.tensor(np.ones((1, BATCH), bool)),
        sequence.detach()[[0, 1, 0], :, 0],
        mg.tensor(np.full((1, BATCH), -1.0)),
        mg.tensor(np.zeros((1, BATCH))),
        mg.tensor(np.full((1, BATCH), np.inf)),
        mg.tensor(np.full((1, BATCH), np.nan)),
    ],
)
def test_it_is_refused_whatever_the_values_are_that_it_looks_at(xs: Tensor) -> None:
    """Or a later call with others would find the program, which knows the first ones."""
    with pytest.raises(mg.ScanError, match="does the same every time that it is called"):
        mg.scan(lambda x, h: (h, h + without_being_seen(x)[:, None]), h0, xs)
    with pytest.raises(mg.ScanError, match="does the same every time that it is called"):
        mg.scan(lambda x, h: (x, h + without_being_seen(h)), xs[0], xs)


def test_a_step_that_does_not_take_other_values_is_recorded_on_those_of_another_step() -> None:
    @mg.primitive
    def checked(x: Any, /) -> Any:
        if not (x > 0).any():
            raise ValueError("there are tokens besides 0")
        return 1.0 * x

    def step(x: Any, h: Any) -> Any:
        return h, h + checked(x)[:, None]

    xs = mg.tensor([[1, 1], [0, 3], [2, 2]])
    np.testing.assert_array_equal(mg.scan(step, h0, xs)[1].numpy(), loop(step, h0, xs)[1].numpy())
    with pytest.raises(mg.ScanError, match="does the same every time that it is called"):
        mg.scan(lambda x, h: (h, h * (checked(x) * without_being_seen(x))[:, None]), h0, xs)


def test_a_part_that_differs_in_shape_from_step_to_step_is_refused() -> None:
    xs = mg.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], "float64")
    told = r"getitem: what a scanned step .* here it is \(2,\), and at the first step it was \(1,\)"

    def step(x: Any, h: Any) -> Any:
        return x[x > 0].sum(), h + x[x > 0]

    h = mg.tensor([0.0, 0.0], "float64")
    for played, looped in zip(mg.scan(step, h, xs[::2]), loop(step, h, xs[::2]), strict=True):
        np.testing.assert_array_equal(played.numpy(), looped.numpy())
    with pytest.raises(mg.ScanError, match=told):
        mg.scan(step, h, xs)
    with pytest.raises(mg.ScanError, match=told):
        mg.scan(lambda x, h: (h, h + (x * h)[x > 0].sum()), h, xs)


@pytest.mark.host  # on a device they are found in the debug scope alone
def test_numbers_that_name_nothing_are_found_at_every_step() -> None:
    embedding = nn.Embedding(6, WIDTH, dtype="float64", rng=0)
    wrong = mg.set_at(tokens, (2, 1), -1)
    with pytest.raises(IndexError, match="Embedding lie between 0 and 5; there is a -1"):
        mg.scan(lambda x, h: (h, h + embedding(x)), h0, wrong)
    with pytest.raises(IndexError, match=r"targets of cross_entropy lie .*; there is a -1"):
        mg.scan(lambda x, h: (nn.cross_entropy(h @ table.T, x), h), h0, wrong)
    mask = mg.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], "float64")
    with pytest.raises(ValueError, match="mse_loss: there is nothing to average"):
        mg.scan(lambda x, h: (nn.mse_loss(h[:, 0], h[:, 1], x), h), h0, mask)


@pytest.mark.parametrize("of_what", ["x", "a parameter"])
def test_a_rule_that_computes_with_arrays_is_refused(of_what: str) -> None:
    seen: dict[str, Any] = {}

    @mg.primitive
    def scaled(x: Any, w: Any, /) -> Any:
        seen.update({"x": x, "a parameter": w})
        return x * w * w

    def step(x: Any, h: Any) -> Any:
        return h, scaled(h, w) + x

    def rule(g: Any, x: Any, w: Any) -> Any:
        return g * (w if of_what == "x" else x) * mg.asarray(2.0 * seen[of_what])

    scaled.rules(x=lambda g, w: g * w * w, w=rule)
    mg.scan(step, h0, sequence)
    with mg.Tape(), pytest.raises(mg.ScanError, match="something other than minigrad's operations"):
        mg.scan(step, h0, sequence)


def test_a_rule_that_looks_at_values_is_refused_with_its_line() -> None:
    @mg.primitive
    def rectified(x: Any, /) -> Any:
        return x * (x > 0.0)

    rectified.rules(x=lambda g, x: g * ((x.array if isinstance(x, Tensor) else x) > 0.0))
    with (
        mg.Tape(),
        pytest.raises(
            mg.ScanError, match=r"gradient of this step .* cannot look at .* \(.*test_scan\.py:\d+"
        ),
    ):
        mg.scan(lambda x, h: (h, rectified(h) + x), h0, sequence)


def test_tensors_of_a_step_that_get_out_of_it_otherwise_cannot_be_used() -> None:
    kept: list[Any] = []

    def step(x: Any, h: Any) -> Any:
        kept.append(h * x)
        return h, h

    mg.scan(step, h0, sequence)
    with pytest.raises(mg.ScanError, match="to use it afterwards, return it in y"):
        kept[-1].sum()

    def in_a_thread(x: Any, h: Any) -> Any:
        with ThreadPoolExecutor() as threads:
            return h, threads.submit(lambda: mg.argmax(h) * h).result()

    with pytest.raises(mg.ScanError, match="return it in y"):
        mg.scan(in_a_thread, h0, sequence)
    assert repr(kept[0]) == "<(2, 4) float64 in a step that is scanned>"

    def with_a_penalty(x: Any, h: Any) -> Any:
        kept.append((W * W).sum())
        return h, h

    with mg.Tape():
        mg.scan(with_a_penalty, h0, sequence)
        with pytest.raises(mg.ScanError, match="return it in y"):
            kept[-1] + 1.0


def test_a_step_changes_no_leaf_and_no_tape() -> None:
    parameter = leaf_of(h0.numpy())

    def rebinding(x: Any, h: Any) -> Any:
        parameter.rebind(0.5 * parameter.array)
        return h, h

    with pytest.raises(mg.TapeError, match="a leaf cannot be given another array in a step that"):
        mg.scan(rebinding, h0, sequence)
    np.testing.assert_array_equal(parameter.numpy(), h0.numpy())

    def cutting(x: Any, h: Any) -> Any:
        tape.cut()
        return h, mg.tanh(h + x)

    with mg.Tape() as tape, pytest.raises(mg.TapeError, match="cannot be cut in a step that is"):
        mg.scan(cutting, h0, sequence)


def test_a_step_that_computes_a_gradient_is_refused() -> None:
    slope = mg.grad(lambda h: mg.tanh(h @ W).sum())
    with mg.Tape(), pytest.raises(mg.ScanError, match="cannot compute a gradient itself: write"):
        mg.scan(lambda x, h: (h, slope(h) + x), h0, sequence)


def test_parameters_need_not_be_tried_with_other_values() -> None:
    lengths = mg.tensor([1, 2])
    covariance = leaf_of(np.array([[1.0, 0.97], [0.97, 1.0]]))

    def step(x: Any, h: Any) -> Any:
        root = mg.linalg.cholesky(covariance)  # of no larger one
        return h[lengths > 1], mg.tanh(root @ h + x)

    assert_is_the_loop(step, h0, sequence, covariance)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (lambda x, h: h, TypeError, r"returns the pair \(y, state\), not a "),
        (lambda x, h: (h, 1.0), TypeError, "the state of a step is of tensors, not of a float"),
        (lambda x, h: (None, h), TypeError, "y of a step is of tensors, not of a NoneType"),
        (lambda x, h: (h, h[:1]), ValueError, r"was given \(2, 4\) float64 and returned \(1, 4\)"),
        (lambda x, h: (h, h.astype("float32")), ValueError, "returned .* float32"),
        (lambda x, h: (h, (h, h)), ValueError, "a step keeps the nesting"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(
    step: Step, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mg.scan(step, h0, sequence)


@pytest.mark.parametrize(
    "xs", [mg.tensor(1.0), mg.tensor(np.ones((0, 2))), (sequence, sequence[:2]), ()]
)
def test_sequences_without_steps_or_of_different_lengths_are_refused(xs: Any) -> None:
    with pytest.raises(ValueError, match="xs have time first, and all as many steps, at least one"):
        mg.scan(elman, h0, xs)


def test_a_gradient_that_has_no_second_order_is_refused() -> None:
    @mg.primitive
    def doubled(x: Any, /) -> Any:
        return 2.0 * x

    def rule(g: Any) -> Any:
        if isinstance(g, Tensor):
            raise mg.TapeError("this has no second order")
        return 2.0 * g

    doubled.rules(x=rule)
    with mg.Tape(), pytest.raises(mg.ScanError, match="cannot be played: this has no second"):
        mg.scan(lambda x, h: (h, doubled(h) + x), h0, sequence)
    mg.scan(lambda x, h: (h, doubled(h) + x), h0, sequence)
