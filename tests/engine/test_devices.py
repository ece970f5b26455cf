"""Devices: where things are made, how they move, and what is refused. On the stand-in."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin

import minigrad as mg
from minigrad import nn, optim

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("cuda")]


# --------------------------------------------------------------------------------------
# Where things are made
# --------------------------------------------------------------------------------------

MADE: dict[str, Callable[[], mg.Tensor]] = {
    "a number": lambda: mg.tensor(1.0),
    "a list": lambda: mg.tensor([1.0, 2.0]),
    "an array": lambda: mg.asarray(np.ones(2)),
    "a list of tensors": lambda: mg.tensor([mg.tensor(1.0), mg.tensor(2.0)]),
    "a leaf": lambda: mg.tensor(1.0, requires_grad=True),
    "a parameter": lambda: nn.Parameter(np.ones(2)),
    "a layer": lambda: nn.Linear(2, 3, rng=0).weight,
    "an embedding": lambda: nn.Embedding(2, 3, rng=0).weight,
    "an initial value": lambda: nn.init.orthogonal((2, 2), rng=0),
    "an operation of lists": lambda: mg.add([1.0], [2.0]),
    "stacked numbers": lambda: mg.stack([1.0, 2.0]),
}


@pytest.mark.parametrize("name", MADE)
def test_things_are_made_on_the_device_of_the_scope(name: str) -> None:
    assert MADE[name]().device == "cuda:0"
    with mg.device("cpu"):
        assert MADE[name]().device == "cpu"
    with mg.device("cuda:1"):
        assert MADE[name]().device == "cuda:1"
    assert MADE[name]().device == "cuda:0"


def test_what_is_on_a_device_stays_there() -> None:
    here, there = mg.tensor(1.0, device="cpu"), mg.tensor(1.0)
    for make in (mg.tensor, mg.asarray):
        assert make(here).device == "cpu"
        with mg.device("cpu"):
            assert make(there).device == "cuda:0"
            assert make(there.array).device == "cuda:0"
    assert mg.asarray(there).array is there.array
    assert mg.tensor(there).array is not there.array
    assert mg.tensor(there, device="cuda").array is not there.array
    assert mg.asarray(there, device="cuda:0").array is there.array


def test_a_device_that_is_named_comes_before_the_scope() -> None:
    assert mg.tensor([1.0], device="cpu").device == "cpu"
    assert nn.Linear(2, 3, device="cpu").weight.device == "cpu"
    assert nn.init.zeros((2,), device="cuda:1").device == "cuda:1"


def test_cuda_without_a_number_is_the_current_device() -> None:
    x = mg.tensor([1.0], device="cpu")
    assert x.to("cuda").device == "cuda:0"
    with mg.device("cuda:1"):
        assert x.to("cuda").device == "cuda:1"
        with mg.device("cuda"):
            assert mg.tensor(1.0).device == "cuda:1"


def test_a_scope_ends_when_its_block_fails() -> None:
    def fail() -> None:
        with mg.device("cuda:1"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert mg.tensor(1.0).device == "cuda:0"


def test_a_thread_begins_on_the_cpu_and_a_task_where_it_was_made() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(mg.tensor(1.0).device))
    thread.start()
    thread.join()

    async def task() -> str:
        return mg.tensor(1.0).device

    assert [*found, asyncio.run(task())] == ["cpu", "cuda:0"]


def test_a_seed_gives_the_same_model_on_every_device() -> None:
    weight = nn.Linear(3, 4, rng=5).weight
    other = nn.Linear(3, 4, rng=5, device="cpu").weight
    np.testing.assert_array_equal(weight.numpy(), other.numpy())


def test_numbers_join_tensors_where_these_are() -> None:
    with mg.device("cpu"):
        x = mg.tensor([1.0], device="cuda:0")
        assert mg.stack([x[0], 2.0]).tolist() == [1.0, 2.0]
        assert mg.maximum(x, 2.0).device == "cuda:0"
        assert nn.cross_entropy(x, 0, True).item() == 0.0


def test_a_file_is_loaded_onto_the_device_of_the_scope(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    mg.save(tmp_path / "x", {"x": mg.tensor([1.0, 2.0])})
    assert mg.load(tmp_path / "x")["x"].device == "cuda:0"
    with mg.device("cpu"):
        assert mg.load(tmp_path / "x")["x"].tolist() == [1.0, 2.0]


def test_a_checkpoint_makes_again_what_it_made_where_it_made_it() -> None:
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    with mg.Tape() as tape:
        y = mg.checkpoint(lambda x: mg.sum(x * x * mg.tensor([1.0, 3.0])))(x)
    with mg.device("cpu"):
        assert tape.gradient(y, x).tolist() == [2.0, 12.0]


# --------------------------------------------------------------------------------------
# Moving
# --------------------------------------------------------------------------------------


def test_tensors_move() -> None:
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    assert x.to("cpu").is_leaf
    assert isinstance(x.to("cpu").array, np.ndarray)
    assert [x.to(name).device for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda:0", "cuda:1"]
    assert x.to("cuda:1").to("cpu").tolist() == [1.0, 2.0]


def test_a_module_moves_with_its_gradients() -> None:
    layer = nn.Linear(2, 1, rng=0)
    layer.weight.grad = mg.tensor([[1.0, 2.0]])
    layer.to("cpu")
    assert {p.device for p in layer.parameters()} == {"cpu"}
    assert layer.weight.grad is not None
    assert layer.weight.grad.device == "cpu"


def test_a_state_is_loaded_where_the_module_is() -> None:
    layer, other = nn.Linear(2, 1, rng=0), nn.Linear(2, 1, rng=1, device="cpu")
    layer.load_state_dict(other.state_dict())
    assert layer.weight.device == "cuda:0"
    np.testing.assert_array_equal(layer.weight.numpy(), other.weight.numpy())
    optimizer = optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer.weight.grad = mg.tensor([[1.0, 1.0]])
    optimizer.step(allow_missing=True)
    saved = {name: value.to("cpu") for name, value in optimizer.state_dict().items()}
    optimizer.load_state_dict(saved)
    optimizer.step(allow_missing=True)
    assert layer.weight.device == "cuda:0"


def test_an_optimizers_state_follows_its_parameters() -> None:
    layer = nn.Linear(2, 1, bias=False, rng=0)
    optimizer = optim.Adam(layer.parameters(), 0.1)
    for device in ("cuda:0", "cpu", "cuda:0"):
        layer.to(device)
        layer.weight.grad = mg.tensor([[1.0, 1.0]], device=device)
        optimizer.step()
        assert {value.device for value in optimizer.state_dict().values()} <= {"cpu", device}


def test_copies_and_pickles_stay_on_the_device() -> None:
    with mg.device("cuda:1"):
        x = mg.tensor([1.0, 2.0])
    assert copy.deepcopy(x).device == "cuda:1"
    assert pickle.loads(pickle.dumps(mg.tensor([1.0, 2.0]))).device == "cuda:0"


def test_dlpack_shares_the_memory_of_the_device() -> None:
    x = mg.tensor([1.0, 2.0])
    assert mg.from_dlpack(x).device == "cuda:0"
    assert mg.from_dlpack(np.ones(2)).device == "cpu"


def test_a_device_tensor_says_where_it_is() -> None:
    assert repr(mg.tensor([1.0, 2.0])) == "tensor([1., 2.], device='cuda:0')"


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:x", "cuda:", ""])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown device {name!r}: write 'cpu', 'cuda'"):
        mg.device(name).__enter__()


def test_a_missing_device_is_named() -> None:
    for use in (lambda: mg.device("cuda:2").__enter__(), lambda: mg.tensor(1.0).to("cuda:2")):
        with pytest.raises(RuntimeError, match="'cuda:2' was asked for, but CuPy finds only 2"):
            use()


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for use in (mg.device("cuda").__enter__, mg.cuda.synchronize, mg.cuda.memory_allocated):
        with pytest.raises(ImportError, match=r"minigrad\[cuda13\]"):
            use()
    assert not mg.cuda.is_available()
    assert mg.cuda.device_count() == 0


def test_without_a_gpu_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cupy"], "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="'cuda' was asked for, but CuPy finds no usable GPU"):
        mg.device("cuda").__enter__()
    assert mg.cuda.device_count() == 0


def test_operands_on_different_gpus_are_refused() -> None:
    x, y = mg.tensor([1.0]), mg.tensor([1.0], device="cuda:1")
    with pytest.raises(TypeError, match=r"multiply: .* different devices, cuda:0 and cuda:1"):
        x * y
    with pytest.raises(TypeError, match="an index on cpu cannot read a tensor on cuda:0"):
        x[mg.tensor([0], device="cpu")]


def test_computing_on_another_gpu_needs_its_scope() -> None:
    y = mg.tensor([1.0, 2.0], device="cuda:1", requires_grad=True)
    with pytest.raises(ValueError, match=r"exp: .* on cuda:1, .* current device is cuda:0: comp"):
        mg.exp(y)
    with mg.device("cuda:1"), mg.Tape() as tape:
        z = mg.sum(y * y)
        assert tape.gradient(z, y).tolist() == [2.0, 4.0]
        assert z.device == "cuda:1"


def test_a_leaf_keeps_its_device() -> None:
    x = mg.tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"on cuda:0, and was given .* on cpu"):
        x.rebind(np.zeros(1, "float32"))
    with pytest.raises(TypeError, match="this tensor is on cuda:0"):
        np.asarray(mg.tensor([1.0]))


# --------------------------------------------------------------------------------------
# The debug scope
# --------------------------------------------------------------------------------------

OUT_OF_RANGE: dict[str, Callable[[mg.Tensor, Any], mg.Tensor]] = {
    "getitem": lambda x, i: x[i],
    "in a tuple": lambda x, i: x[:, i] if x.ndim > 1 else x[i, None],
    "take": lambda x, i: mg.take(x, i),
    "take_along_axis": lambda x, i: mg.take_along_axis(x, i),
    "set_at": lambda x, i: mg.set_at(x, i, 0.0),
    "set_at with values": lambda x, i: mg.set_at(x, i, mg.tensor([1.0, 2.0])),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
@pytest.mark.parametrize("far", [3, -4])
def test_indices_out_of_range_are_found_in_the_debug_scope_alone(name: str, far: int) -> None:
    x, index = mg.tensor([1.0, 2.0, 3.0]), mg.tensor([0, far])
    with standin.waits() as waits:
        OUT_OF_RANGE[name](x, index)
    assert waits == []
    with mg.debug():
        OUT_OF_RANGE[name](x, mg.tensor([0, 2]))
        with pytest.raises(IndexError, match=f"index {far} is out of bounds"):
            OUT_OF_RANGE[name](x, index)


def test_numbers_out_of_range_are_found_in_the_debug_scope_alone() -> None:
    words, targets = nn.Embedding(3, 2, rng=0), mg.tensor([0, 7])
    words(targets)
    nn.cross_entropy(mg.tensor([[0.0, 1.0]] * 2), targets)
    with mg.debug():
        with pytest.raises(IndexError, match="Embedding lie between 0 and 2; there is a 7"):
            words(targets)
        with pytest.raises(IndexError, match="between 0 and 1; there is a 7"):
            nn.cross_entropy(mg.tensor([[0.0, 1.0]] * 2), targets)


def test_the_debug_scope_works_on_a_device() -> None:
    x = mg.tensor([1.0, 0.0], requires_grad=True)
    with mg.debug(), mg.Tape(), pytest.raises(FloatingPointError, match="1 infinite element"):
        mg.log(x)


# --------------------------------------------------------------------------------------
# mg.cuda
# --------------------------------------------------------------------------------------


def test_devices_are_counted() -> None:
    assert mg.cuda.is_available()
    assert mg.cuda.device_count() == 2


def test_memory_is_counted_by_device() -> None:
    before = mg.cuda.memory_allocated(), mg.cuda.memory_allocated("cuda:1")
    x = mg.tensor(np.zeros(1000), device="cuda:1")
    assert x.nbytes == 8000
    assert mg.cuda.memory_allocated("cuda:1") == before[1] + 8192
    assert mg.cuda.memory_allocated() == before[0]
    del x
    assert mg.cuda.memory_allocated("cuda:1") == before[1]
    assert mg.cuda.memory_reserved("cuda:1") >= before[1] + 8192
    mg.cuda.empty_cache("cuda:1")
    assert mg.cuda.memory_reserved("cuda:1") == before[1]


def test_one_can_wait_for_a_device() -> None:
    with standin.waits() as waits:
        mg.cuda.synchronize()
        mg.cuda.synchronize("cuda:1")
    assert waits == ["Device.synchronize"] * 2


def test_dropout_draws_on_the_device_what_a_seed_determines() -> None:
    first, second = (nn.Dropout(0.5, rng=3)(mg.tensor(np.ones(100))) for _ in range(2))
    assert first.device == "cuda:0"
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    assert 20 < (first.numpy() == 0).sum() < 80
