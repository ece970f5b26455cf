"""Collects what CuPy offers: names and parameters, read from the installed package.

    cd tests && python -m standin.collect > standin/offered.json

No GPU is needed. A test compares the table with CuPy wherever it is installed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

#: Where the functions are that are listed, besides those of ``cupy`` itself.
MODULES = ("cupy", "cupy.linalg", "cupy.random", "cupy.cuda")

#: The types whose methods are listed.
TYPES = (
    "cupy.ndarray",
    "cupy.random.Generator",
    "cupy.cuda.Device",
    "cupy.cuda.MemoryPool",
)

_OPERATORS = re.compile(r"__(i|r)?(add|sub|mul|truediv|floordiv|mod|pow|matmul|and|or|xor)__")


def collect() -> dict[str, Any]:
    """Everything listed, by the dotted names of modules and types.

    A function or method is the list of its parameters: ``name`` if it is required, ``name=`` if
    not, with ``*`` and ``/`` as Python writes them, or ``None`` where CuPy does not say. A ufunc
    is a dictionary with its numbers of operands and results, and its types.
    """
    cupy = import_module("cupy")
    table: dict[str, Any] = {"version": cupy.__version__}
    for name in MODULES:
        module = import_module(name)
        table[name] = {
            key: described(getattr(module, key))
            for key in sorted(dir(module))
            if not key.startswith("_") and not isinstance(getattr(module, key), ModuleType)
        }
    for name in TYPES:
        kind = _named(cupy, name)
        table[name] = {
            key: described(getattr(kind, key))
            for key in sorted(dir(kind))
            if not key.startswith("_") or _OPERATORS.fullmatch(key)
        }
    return table


def _named(cupy: Any, dotted: str) -> Any:
    found = cupy
    for part in dotted.split(".")[1:]:
        found = getattr(found, part)
    return found


def described(value: Any) -> Any:
    """What the table says of one function, ufunc, or anything else."""
    if isinstance(getattr(value, "types", None), list):
        return {"nin": value.nin, "nout": value.nout, "types": list(value.types)}
    if not callable(value):
        return type(value).__name__
    if type(value).__name__ == "_GUFunc":
        return [*_parameters(inspect.signature(type(value).__call__))][1:]
    try:
        return [*_parameters(inspect.signature(value))]
    except (TypeError, ValueError):
        return _from_docstring(value.__doc__ or "")


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    kind: Any = None
    for parameter in signature.parameters.values():
        if kind is parameter.POSITIONAL_ONLY is not parameter.kind:
            yield "/"
        if parameter.kind is parameter.KEYWORD_ONLY and kind not in (
            parameter.KEYWORD_ONLY,
            parameter.VAR_POSITIONAL,
        ):
            yield "*"
        kind = parameter.kind
        stars = "*" * (kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD))
        stars += "*" * (kind is parameter.VAR_KEYWORD)
        optional = "=" if parameter.default is not parameter.empty else ""
        yield f"{stars}{parameter.name}{optional}"
    if kind is inspect.Parameter.POSITIONAL_ONLY:
        yield "/"


def _from_docstring(text: str) -> list[str] | None:
    """The parameters as Cython writes them: ``_ndarray_base.sort(self, int axis=-1)``."""
    found = re.match(r"[\w.]+\((.*?)\)(?: ->.*)?(?:\n|$)", text)
    if found is None:
        return None
    parts = [part.strip() for part in found[1].split(",") if part.strip()]
    words = [(part.partition("=")[0].split()[-1], "=" if "=" in part else "") for part in parts]
    return [name + optional for name, optional in words]


if __name__ == "__main__":
    lines = (
        f'"{name}": {{\n'
        + ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in group.items())
        + "\n}"
        if isinstance(group, dict)
        else f'"{name}": {json.dumps(group)}'
        for name, group in collect().items()
    )
    print("{\n" + ",\n".join(lines) + "\n}")
