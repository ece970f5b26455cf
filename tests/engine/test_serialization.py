"""Saving and loading: what comes back, what a crash leaves behind, and what is refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigrad as mg
from minigrad import nn, optim

DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64"),
    *("int8", "int16", "int32", "int64", "float16", "float32", "float64"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def round_trip(path: Path, tensors: dict[str, Any]) -> mg.SavedTensors:
    mg.save(path, tensors)
    return mg.load(path)


# ------------------------------------------------------------------------------ round trips


def test_nested_dictionaries_come_back_as_they_were(path: Path) -> None:
    w, b = mg.tensor([[1.0, 2.0]]), np.array([3.0])
    saved = round_trip(path, {"model": {"layer": {"w": w}, "b": b}, "step": mg.tensor(7)})
    assert isinstance(saved, dict)
    assert saved.keys() == {"model", "step"}
    assert saved["model"].keys() == {"layer", "b"}
    for made, original in (
        (saved["model"]["layer"]["w"], w.numpy()),
        (saved["model"]["b"], b),
        (saved["step"], np.asarray(7)),
    ):
        assert type(made) is mg.Tensor
        assert not made.requires_grad
        assert made.dtype == original.dtype
        np.testing.assert_array_equal(made.numpy(), original)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
def test_dtypes_and_shapes(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    made = round_trip(path, {"x": data})["x"]
    assert made.dtype == dtype
    assert made.shape == shape
    np.testing.assert_array_equal(made.numpy(), data)


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: a.T,
        lambda a: a.swapaxes(0, 1),
        lambda a: a[::-1],
        lambda a: a[:, 1:, ::2],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[:1], (5, *a.shape[1:])),
        lambda a: a.astype(">f8"),
    ],
    ids=["transposed", "swapped", "reversed", "strided", "fortran", "broadcast", "big-endian"],
)
def test_every_layout_comes_back_in_order(path: Path, layout: Callable[[Any], Any]) -> None:
    data = layout(np.arange(24.0).reshape(2, 3, 4))
    made = round_trip(path, {"x": data, "y": mg.asarray(data)})
    for name in "xy":
        np.testing.assert_array_equal(made[name].numpy(), data)
    np.testing.assert_array_equal(load_file(path)["x"], data)


def test_special_values_come_back_bit_for_bit(path: Path) -> None:
    data = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, np.finfo("float64").max])
    assert round_trip(path, {"x": data})["x"].numpy().tobytes() == data.tobytes()


def test_leaves_and_computed_tensors_are_saved_as_their_values(path: Path) -> None:
    x = nn.Parameter(mg.tensor([1.0, 2.0]))
    with mg.Tape() as tape:
        y = x * 2.0
        saved = round_trip(path, {"x": x, "y": y})
    assert len(tape) == 1
    assert saved["x"].tolist() == [1.0, 2.0]
    assert saved["y"].tolist() == [2.0, 4.0]


def test_numbers_and_lists_are_saved(path: Path) -> None:
    saved = round_trip(path, {"number": 0.5, "list": [[1, 2]]})
    assert saved["number"].item() == 0.5
    assert saved["list"].tolist() == [[1, 2]]


def test_metadata(path: Path) -> None:
    metadata = {"note": "two\nlines, “quoted”", "": "empty name"}
    mg.save(path, {"x": mg.tensor(1.0)}, metadata)
    assert mg.load(path).metadata == metadata
    mg.save(path, {"x": mg.tensor(1.0)})
    assert mg.load(path).metadata == {}


def test_nothing_but_metadata(path: Path) -> None:
    mg.save(path, {}, {"note": "empty"})
    saved = mg.load(path)
    assert saved == {}
    assert saved.metadata == {"note": "empty"}


@pytest.mark.parametrize("name", ["", "a.b", "weight_ih_l0", "ä", "a b", "x\\y"])
def test_names(path: Path, name: str) -> None:
    saved = round_trip(path, {name: mg.tensor(1.0), "group": {name: mg.tensor(2.0)}})
    assert saved[name].item() == 1.0
    assert saved["group"][name].item() == 2.0


def test_others_can_read_and_write_the_file(path: Path) -> None:
    mg.save(path, {"model": {"w": mg.tensor([1.0])}})
    np.testing.assert_array_equal(load_file(path)["model/w"], np.array([1.0], "float32"))
    save_file({"encoder.w": np.array([2.0])}, path)
    assert mg.load(path)["encoder.w"].tolist() == [2.0]


def test_a_path_may_be_a_string_and_its_folders_new(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "new", "folder", "file")
    mg.save(path, {"x": mg.tensor(1.0)})
    assert mg.load(path)["x"].item() == 1.0


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_a_saved_file_has_the_permissions_of_any_new_file(path: Path, tmp_path: Path) -> None:
    mg.save(path, {"x": mg.tensor(1.0)})
    other = tmp_path / "other"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


# ------------------------------------------------------------------------------ atomicity


class FullDisk(io.FileIO):
    """A file on a disk that has room for ten bytes."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[:10])
        raise OSError(28, "No space left on device")


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **settings: Any) -> Any:
        raise error

    return fail


FAILURES: list[tuple[str, Any, type[BaseException]]] = [
    ("fdopen", FullDisk, OSError),
    ("fsync", raising(OSError(5, "Input/output error")), OSError),
    ("fsync", raising(KeyboardInterrupt()), KeyboardInterrupt),
    ("replace", raising(PermissionError(13, "Permission denied")), PermissionError),
    ("replace", raising(KeyboardInterrupt()), KeyboardInterrupt),
]


@pytest.mark.parametrize(("name", "failure", "error"), FAILURES)
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    path: Path,
    name: str,
    failure: Any,
    error: type[BaseException],
    existed: bool,
) -> None:
    if existed:
        mg.save(path, {"x": mg.tensor([1.0, 2.0])}, {"version": "old"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, failure)
        with pytest.raises(error):
            mg.save(path, {"x": mg.tensor([3.0, 4.0])}, {"version": "new"})
    assert list(path.parent.iterdir()) == ([path] if existed else [])
    if existed:
        saved = mg.load(path)
        assert saved["x"].tolist() == [1.0, 2.0]
        assert saved.metadata == {"version": "old"}
    mg.save(path, {"x": mg.tensor([3.0, 4.0])})
    assert mg.load(path)["x"].tolist() == [3.0, 4.0]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_process_that_dies_while_saving_leaves_the_old_file(path: Path, name: str) -> None:
    mg.save(path, {"x": mg.tensor([1.0, 2.0])})
    program = (
        "import os, sys; import minigrad as mg; "
        f"os.{name} = lambda *args: os._exit(9); "
        "mg.save(sys.argv[1], {'x': mg.tensor([3.0, 4.0])})"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run([sys.executable, "-c", program, path], env=environment)
    assert finished.returncode == 9
    assert mg.load(path)["x"].tolist() == [1.0, 2.0]


def test_the_file_is_on_the_disk_before_it_takes_its_place(path: Path) -> None:
    order: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace"):
            original = getattr(os, name)

            def noted(*args: Any, name: str = name, original: Any = original) -> Any:
                order.append(name)
                return original(*args)

            patch.setattr(os, name, noted)
        mg.save(path, {"x": mg.tensor(1.0)})
    assert order[:2] == ["fsync", "replace"]


def test_a_loaded_tensor_survives_the_next_save(path: Path) -> None:
    first = round_trip(path, {"x": np.arange(1000.0)})["x"]
    second = round_trip(path, {"x": np.zeros(1000)})["x"]
    np.testing.assert_array_equal(first.numpy(), np.arange(1000.0))
    np.testing.assert_array_equal(second.numpy(), np.zeros(1000))


# ------------------------------------------------------------------------------ refusals


def is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="is not a safetensors file of numbers") as raised:
        mg.load(path)
    assert str(path) in str(raised.value)


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path) -> None:
    mg.save(path, {"x": mg.tensor([1.0, 2.0])})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        is_refused(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"F32"', b'"F99"'),
        (b'"F32"', b'"F64"'),
        (b"[2]", b"[3]"),
        (b"[0,8]", b"[0,9]"),
        (b"[0,8]", b"[4,8]"),
        (b"{", b"["),
        (b'"x"', b'"\xff"'),
    ],
)
def test_a_damaged_file_is_refused(path: Path, old: bytes, new: bytes) -> None:
    mg.save(path, {"x": mg.tensor([1.0, 2.0])})
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))
    is_refused(path)


@pytest.mark.parametrize("content", [b"", b"a text file\n" * 100, b"\x80\x04K*.", b"PK\x03\x04"])
def test_another_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    is_refused(path)


def test_complex_numbers_in_a_file_are_refused(path: Path) -> None:
    save_file({"x": np.zeros(2, "complex64")}, path)
    is_refused(path)


def test_names_that_do_not_nest_are_refused_and_named(path: Path) -> None:
    save_file({"a": np.zeros(1), "a/b": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="a/b"):
        mg.load(path)


def test_a_missing_file_and_a_folder_are_named(path: Path) -> None:
    for missing in (path, path.parent):
        with pytest.raises(FileNotFoundError, match="there is no file") as raised:
            mg.load(missing)
        assert str(missing) in str(raised.value)


def test_saving_to_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OSError, match=path.name):
        mg.save(path, {"x": mg.tensor(1.0)})
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({"a/b": mg.tensor(1.0)}, ValueError, "cannot contain a slash: 'a/b'"),
        ({"a": {"b/": mg.tensor(1.0)}}, ValueError, "cannot contain a slash: 'b/'"),
        ({"a/b": {}}, ValueError, "cannot contain a slash: 'a/b'"),
        ({"__metadata__": mg.tensor(1.0)}, ValueError, "__metadata__"),
        ({0: mg.tensor(1.0)}, TypeError, "name.* 0"),
        ({"a": "text"}, TypeError, "real numbers or booleans"),
        ({"a": None}, TypeError, "real numbers or booleans"),
        ({"a": np.zeros(2, "complex64")}, TypeError, "real numbers or booleans"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_file_is_touched(
    path: Path, tensors: Any, error: type[Exception], message: str
) -> None:
    mg.save(path, {"x": mg.tensor(1.0)})
    with pytest.raises(error, match=message):
        mg.save(path, tensors)
    assert mg.load(path)["x"].item() == 1.0
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({"step": 3}, "'step' is int"), ({3: "step"}, "3"), ({"note": None}, "'note' is NoneType")],
)
def test_metadata_that_are_not_strings_are_refused(path: Path, metadata: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"metadata are strings by name; {message}"):
        mg.save(path, {"x": mg.tensor(1.0)}, metadata)
    assert not path.exists()


@pytest.mark.parametrize("module", ["safetensors", "safetensors.numpy"])
def test_without_safetensors_the_extra_is_named(
    path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mg.save(path, {"x": mg.tensor(1.0)})
    before = path.read_bytes()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"minigrad\[io\]"):
        mg.save(path, {"x": mg.tensor(2.0)})
    with pytest.raises(ImportError, match=r"minigrad\[io\]"):
        mg.load(path)
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------ resuming


class Net(nn.Module):
    """Two layers, one of which ends in a parameter of no dimensions."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.layers = [nn.Linear(3, 8, rng=rng), nn.Linear(8, 1, rng=rng)]
        self.scale = nn.Parameter(mg.tensor(1.0))

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        output: mg.Tensor = self.layers[1](mg.tanh(self.layers[0](x))) * self.scale
        return output


def train(net: Net, optimizer: optim.SGD | optim.Adam, steps: range) -> list[float]:
    losses = []
    for step in steps:
        x = mg.tensor(np.random.default_rng(step).normal(size=(16, 3)), "float32")
        optimizer.zero_grad()
        with mg.Tape() as tape:
            loss = ((net(x) - x[:, :1] * x[:, 1:2]) ** 2).mean()
        tape.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "make",
    [
        lambda net: optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        lambda net: optim.Adam(net.parameters(), lr=0.01),
        lambda net: optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1),
    ],
    ids=["SGD", "Adam", "AdamW"],
)
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    path: Path, make: Callable[[Net], Any]
) -> None:
    whole = Net(0)
    expected = train(whole, make(whole), range(20))

    first = Net(0)
    optimizer = make(first)
    losses = train(first, optimizer, range(12))
    mg.save(
        path,
        {"model": first.state_dict(), "optimizer": optimizer.state_dict()},
        {"next step": "12"},
    )

    saved = mg.load(path)
    second = Net(1)
    optimizer = make(second)
    second.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    losses += train(second, optimizer, range(int(saved.metadata["next step"]), 20))

    assert losses == expected
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
