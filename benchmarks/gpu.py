"""What the programs for a GPU share: whether there is one, what it is, and how tables come about.

A program is a number of sections, which yield rows. They are printed as they come, and written
as JSON after every row, so that a run that is cut short loses nothing.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import machine

import minigrad as mg

Run = Callable[[], Any]
#: A row of a table: its columns by name.
Row = dict[str, Any]
#: Yields its rows; fewer of them, and smaller ones, if the run is to be quick.
Section = Callable[[bool], Iterator[Row]]

#: What a program returns if there is no GPU.
NO_GPU = 2


def why_not() -> str | None:
    """Why nothing can run on a GPU, and what to do about it; ``None`` if it can."""
    try:
        with mg.device("cuda"):
            return None
    except ImportError as error:
        return f"{error}:\n\n    pip install 'minigrad[cuda13]'"
    except RuntimeError as error:
        return str(error)


def about() -> dict[str, Any]:
    """The device, its driver, the versions of everything, the date and the commit."""
    cupy = import_module("cupy")
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        **machine.about(),
        "device": properties["name"].decode(),
        "compute capability": cupy.cuda.Device().compute_capability,
        "bytes of memory": properties["totalGlobalMem"],
        "driver": machine.output(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        ),
        "CUDA of the driver": _of_cuda(runtime.driverGetVersion()),
        "CUDA of the runtime": _of_cuda(runtime.runtimeGetVersion()),
        "cupy": cupy.__version__,
    }


def _of_cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def torch_on_a_gpu() -> Any:
    """PyTorch, or ``None`` where it is missing or cannot use the GPU."""
    try:
        torch = import_module("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def waited_for(run: Run) -> Run:
    """The run, until the GPU has computed all that it was asked to, by whichever library."""

    def whole() -> None:
        run()
        mg.cuda.synchronize()

    return whole


def main(sections: Mapping[str, Section], description: str) -> int:
    """Run a program of these sections by its command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=description.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rows, and small ones")
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    if reason := why_not():
        print(reason)
        return NO_GPU
    print(", ".join(f"{name}: {value}" for name, value in about().items()))
    chosen = {name: sections[name] for name in options.only}
    with mg.device("cuda"):
        return 0 if measured(chosen, options.quick, options.json) else 1


def measured(sections: Mapping[str, Section], quick: bool, path: Path | None) -> bool:
    """Print the tables of all sections, and write them; returns whether all came to an end."""
    tables: dict[str, list[Row]] = {}
    complete = True
    for name, section in sections.items():
        rows = tables[name] = []
        print(f"\n{name}")
        try:
            for row in section(quick):
                print_row(row, header=not rows)
                rows.append(row)
                if path is not None:
                    path.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
        except Exception:
            traceback.print_exc()
            complete = False
    return complete


def print_row(row: Row, header: bool) -> None:
    """A line of the table, below the names of the columns; words on the left, numbers right."""
    cells = [
        (name, f"<{max(len(name), 20)}" if isinstance(value, str) else f">{max(len(name), 8)}")
        for name, value in row.items()
    ]
    if header:
        print("  ".join(f"{name:{form}}" for name, form in cells))
    print("  ".join(f"{_as_text(row[name]):{form}}" for name, form in cells), flush=True)


def _as_text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
