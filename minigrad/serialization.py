"""Saving and loading named tensors, in the safetensors format, atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minigrad.tensor import Tensor, asarray


class SavedTensors(dict[str, Any]):
    """What :func:`load` returns: tensors by name, nested as they were saved.

    Attributes:
        metadata: the strings that were saved with them.
    """

    def __init__(self, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        super().__init__(tensors)
        self.metadata = dict(metadata)


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Args:
        path: the file; an old one is replaced in one step after the new one is complete, so
            a crash at any moment leaves the old file or the new one.
        tensors: tensors or arrays by name; a dictionary among them is stored as ``name/...``.
            They are stored contiguously, whatever their layout, and copied from a GPU.
        metadata: strings by name.

    Raises:
        ImportError: if safetensors is not installed.
        ValueError: if a name contains a slash.
        TypeError: if the metadata are not strings.

    >>> import minigrad as mg, tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> mg.save(path, {"model": {"w": mg.tensor([1.0, 2.0])}}, {"note": "two numbers"})
    >>> saved = mg.load(path)
    >>> saved["model"]["w"], saved.metadata
    (tensor([1., 2.]), {'note': 'two numbers'})
    """
    flat = {
        name: array if array.flags.c_contiguous else array.copy(order="C")
        for name, array in _flatten(tensors, "")
    }
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata are strings by name; {key!r} is {type(value).__name__}")
    data = _safetensors().numpy.save(flat, dict(metadata) if metadata else None)
    write_atomically(Path(path), data)


def load(path: str | os.PathLike[str]) -> SavedTensors:
    """Read a safetensors file: constants by name, nested as :func:`save` was given them.

    Raises:
        ImportError: if safetensors is not installed.
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a safetensors file, or a damaged one.
    """
    safetensors = _safetensors()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    nested: dict[str, Any] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118
                *groups, last = name.split("/")
                place = nested
                for group in groups:
                    place = place.setdefault(group, {})
                    if isinstance(place, Tensor):
                        raise ValueError(f"{path} holds both a tensor {group} and one {name}")
                if last in place:
                    raise ValueError(f"{path} holds both a tensor {name} and some inside it")
                place[last] = asarray(file.get_tensor(name))
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a safetensors file of numbers: {error}") from error
    return SavedTensors(nested, metadata)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a new one beside it takes its place when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The permissions that this process withholds from new files; it can only be read so."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flatten(tensors: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"a tensor's name is a string, not {name!r}")
        if prefix + name == "__metadata__":
            raise ValueError("a tensor cannot be named __metadata__; the format needs that name")
        if "/" in name:
            raise ValueError(f"a tensor's name cannot contain a slash: {name!r}")
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            held = value if isinstance(value, Tensor) else asarray(value, device="cpu")
            yield prefix + name, held.numpy()


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("saving and loading need safetensors: install minigrad[io]") from error
    return safetensors
