"""Training on a GPU: what comes out on the CPU, memory that does not grow, and no waits.

The tests run on the stand-in, and once more on CuPy where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cell_table import HIDDEN, INPUTS
from training_table import (
    CASES,
    CLIPS,
    OPTIMIZERS,
    Loss,
    no_clip,
    of_outputs,
    training_step,
)

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn, optim

pytestmark = pytest.mark.host
on_a_gpu = pytest.mark.usefixtures("gpu")

#: Float32 numbers that are summed in another order; of the largest one.
ROUNDING = 1e-4


def assert_near(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, e in expected.items():
        scale = np.abs(e).max(initial=1e-3)
        np.testing.assert_allclose(found[name], e, rtol=0, atol=ROUNDING * scale, err_msg=name)


def values(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


# --------------------------------------------------------------------------------------
# The same as on the CPU
# --------------------------------------------------------------------------------------


def loss_and_gradients(case: str) -> dict[str, np.ndarray]:
    """Without the dropout of the case: two libraries never draw the same numbers."""
    module, loss = CASES[case]()
    module.eval()
    with mg.Tape() as tape:
        value = loss()
    tape.backward(value)
    found = {"loss": value.numpy()}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.numpy()
    return found


@on_a_gpu
@pytest.mark.parametrize("case", CASES)
def test_a_layer_computes_what_it_does_on_the_cpu(case: str) -> None:
    with mg.device("cpu"):
        expected = loss_and_gradients(case)
    assert_near(loss_and_gradients(case), expected)


def trained(
    make: Callable[[Any], optim.Optimizer], clip: Callable[[Iterable[Tensor]], Any]
) -> dict[str, np.ndarray]:
    """What three steps make of an LSTM."""
    module, loss = of_outputs(rnn.LSTM(INPUTS, HIDDEN, rng=0))
    optimizer = make(module.parameters())
    for _ in range(3):
        training_step(module, loss, optimizer, clip)
    return values(module)


@on_a_gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_does_the_same_steps(name: str) -> None:
    with mg.device("cpu"):
        expected = trained(OPTIMIZERS[name], no_clip)
    assert_near(trained(OPTIMIZERS[name], no_clip), expected)


@on_a_gpu
@pytest.mark.parametrize("name", CLIPS)
def test_clipping_does_the_same(name: str) -> None:
    def plain(parameters: Any) -> optim.Optimizer:
        return optim.SGD(parameters, 10.0)

    with mg.device("cpu"):
        expected = trained(plain, CLIPS[name]())
    assert_near(trained(plain, CLIPS[name]()), expected)


@on_a_gpu
@pytest.mark.parametrize(("here", "there"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_training_goes_on_where_another_device_left_it(
    tmp_path: Path, here: str, there: str
) -> None:
    pytest.importorskip("safetensors")

    def three_steps(device: str, file: str, start: str = "") -> dict[str, np.ndarray]:
        with mg.device(device):
            module, loss = of_outputs(rnn.GRU(INPUTS, HIDDEN, rng=0))
            optimizer = optim.Adam(module.parameters(), 0.1)
            if start:
                saved = mg.load(tmp_path / start)
                module.load_state_dict(saved["model"])
                optimizer.load_state_dict(saved["optimizer"])
            for _ in range(3):
                training_step(module, loss, optimizer)
            states = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
            mg.save(tmp_path / file, states)
            return values(module)

    three_steps(here, "first")
    expected = three_steps(here, "whole", start="first")
    assert_near(three_steps(there, "moved", start="first"), expected)


# --------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------


@on_a_gpu
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (2, 6)])
def test_neither_what_is_held_nor_its_peak_grows_with_the_windows(k1: int, k2: int) -> None:
    cell = rnn.LSTMCell(INPUTS, HIDDEN, rng=0)
    optimizer = optim.Adam(cell.parameters(), 0.01)
    x = mg.tensor(np.ones((8, INPUTS), "float32"))
    state: Any = None
    figures: list[tuple[int, int]] = []
    with rnn.TBPTT(k1, k2) as truncated:
        while len(figures) < 20:
            y, state = cell(x, state)
            if truncated.step(mg.mean(y * y)) is not None:
                rnn.clip_grad_norm_(cell.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                figures.append((mg.cuda.memory_allocated(), mg.cuda.memory_reserved()))
    held, reserved = zip(*figures[10:], strict=True)  # what a pool holds settles by and by
    assert held[0] > 0
    assert len(set(held)) == len(set(reserved)) == 1


# --------------------------------------------------------------------------------------
# Waiting, on a GPU itself; on the stand-in see test_waits.py
# --------------------------------------------------------------------------------------

#: A kernel that does nothing for so many nanoseconds.
SPIN = r"""
extern "C" __global__ void spin(unsigned long long nanoseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
"""


@contextmanager
def kept_busy(seconds: float) -> Iterator[Callable[[], bool]]:
    """The GPU is busy for so long; the function that is given tells whether it still is."""
    cupy = import_module("cupy")
    ended = cupy.cuda.Event(disable_timing=True)
    cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.uint64(seconds * 1e9),))
    ended.record()
    yield lambda: not ended.done
    mg.cuda.synchronize()


def is_waited_for(run: Callable[[], Any]) -> bool:
    """Whether a run, which takes the host far less than 0.3 s, waits for the GPU."""
    with kept_busy(0.3) as busy:
        run()
        return not busy()


#: With attention there are more launches than the queue of a GPU takes before the host waits.
SHORT = [case for case in CASES if not case.startswith("attention")]


@pytest.mark.gpu
def test_a_look_at_a_value_is_found_out() -> None:
    with mg.device("cuda"):
        x = mg.tensor(1.0)
        assert is_waited_for(lambda: (x * 2.0).item())
        assert not is_waited_for(lambda: x * 2.0)


@pytest.mark.gpu
@pytest.mark.parametrize("case", SHORT)
def test_no_layer_waits(case: str) -> None:
    with mg.device("cuda"):
        module, loss = CASES[case]()
        assert not waits(module, loss, optim.SGD(module.parameters(), 0.1))


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_waits(name: str) -> None:
    with mg.device("cuda"):
        module, loss = of_outputs(rnn.GRU(INPUTS, HIDDEN, rng=0))
        assert not waits(module, loss, OPTIMIZERS[name](module.parameters()))


@pytest.mark.gpu
@pytest.mark.parametrize("name", CLIPS)
def test_no_clip_waits(name: str) -> None:
    with mg.device("cuda"):
        module, loss = of_outputs(rnn.GRU(INPUTS, HIDDEN, rng=0))
        assert not waits(module, loss, optim.SGD(module.parameters(), 0.1), CLIPS[name]())


def waits(
    module: nn.Module,
    loss: Loss,
    optimizer: optim.Optimizer,
    clip: Callable[[Iterable[Tensor]], Any] = no_clip,
) -> bool:
    """Whether a step waits, after two that compile the kernels and fill the memory pool."""
    for _ in range(2):
        training_step(module, loss, optimizer, clip)
    return is_waited_for(lambda: training_step(module, loss, optimizer, clip))
