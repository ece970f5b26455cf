"""Everything that there is to run on a GPU, in one command and under eight minutes.

    pip install -e '.[cuda13,tests,torch]'     # cuda12 for a driver of CUDA 12
    python benchmarks/on_gpu.py                # writes benchmarks/results/DATE-DEVICE.json

The table of probes, the tests that need a GPU, the suite with all tensors on it, and the
benchmarks. Each part is a process with its own limit of time, so that a crash or a hang ends
that part alone, and the file is written after each. It says what device, driver and versions there
were, and of every part how it ended, how long it took, and either how many tests passed and
which failed, or the figures. The exit code is 0 if all parts ended well, 1 if not, and 2 if there
is no GPU.

**This has never been run on a GPU**, so neither have the limits of time been tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gpu
import machine

#: So long before its limit of time a part is asked to end, and to write what it has.
GRACE = 5.0


@dataclass(frozen=True)
class Part:
    """A program, and how long it may take.

    Attributes:
        seconds: the limit of time.
        arguments: what follows ``python``.
        option: the last argument, which the file of the report follows.
        read: what there is to tell of a report.
        environment: variables on top of those of this process.
    """

    seconds: float
    arguments: Sequence[str]
    option: str
    read: Callable[[str], dict[str, Any]]
    environment: Mapping[str, str]


def tests(seconds: float, *arguments: str) -> Part:
    """A part of the tests: few examples of hypothesis, on several cores where xdist is there."""
    workers = min(8, (os.cpu_count() or 1) // 2)
    parallel = ["-n", str(workers)] if workers > 1 and find_spec("xdist") else []
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *parallel, *arguments]
    return Part(seconds, command, "--junitxml", counts, {"HYPOTHESIS_PROFILE": "few"})


def figures(seconds: float, *arguments: str, **environment: str) -> Part:
    """A benchmark."""
    return Part(seconds, arguments, "--json", tables, environment)


def tables(report: str) -> dict[str, Any]:
    """The figures that a benchmark took."""
    return {"figures": json.loads(report)}


def counts(report: str) -> dict[str, Any]:
    """How many tests passed, failed and were skipped; of those that failed, names and errors."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    failures = {
        f"{case.get('classname')}.{case.get('name')}": str(problem.get("message"))[:300]
        for case in cases
        for problem in (*case.iter("failure"), *case.iter("error"))
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - skipped - len(failures),
        "failed": len(failures),
        "skipped": skipped,
        "failures": failures,
    }


#: What needs a GPU, then the suite on it, then figures: what says most comes first.
PARTS = {
    "probes": tests(15, "-m", "gpu", "tests/standin"),
    "training": tests(60, "-m", "gpu", "tests/engine", "tests/rnn", "tests/testing"),
    "examples": tests(45, "-m", "gpu", "tests/examples"),
    "operations": tests(50, "--device", "cuda", "tests/engine/test_operations.py"),
    "engine": tests(
        30, "--device", "cuda", "tests/engine", "--ignore=tests/engine/test_operations.py"
    ),
    "recurrent": tests(55, "--device", "cuda", "tests/rnn"),
    "gradient checks": tests(  # the two that are left out are about the host, and take minutes
        35,
        *("--device", "cuda", "tests/testing"),
        *("--ignore=tests/testing/test_leaks.py", "--ignore=tests/testing/test_plugin.py"),
    ),
    "launches": figures(25, "benchmarks/gpu_launches.py"),
    **{
        f"{section}{what}": figures(
            seconds, "benchmarks/gpu_recurrent.py", "--only", section, CUPY_TF32=tf32
        )
        for section, seconds in (("products", 15), ("layers", 65))
        for what, tf32 in (("", "0"), (", TF32", "1"))
    },
}


def outcome(part: Part) -> dict[str, Any]:
    """Run a part; returns how it ended, and what it reported."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        variables = [f"{name}={value}" for name, value in part.environment.items()]
        start = time.perf_counter()
        ended, printed = finish(part, path)
        found: dict[str, Any] = {
            "command": " ".join([*variables, "python", *part.arguments]),
            "ended": ended,
            "seconds": round(time.perf_counter() - start, 1),
        }
        if path.is_file():
            try:
                found |= part.read(path.read_text(encoding="utf-8"))
            except (ValueError, ElementTree.ParseError) as error:  # killed while it was written
                found["report"] = f"unreadable: {error}"
    if ended != "well":
        found["printed last"] = printed.splitlines()[-40:]
    return found


def finish(part: Part, report: Path) -> tuple[str, str]:
    """How a part ended, and all that it printed."""
    process = subprocess.Popen(
        [sys.executable, *part.arguments, part.option, str(report)],
        cwd=machine.ROOT,
        env={**os.environ, **part.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    try:
        printed, _ = process.communicate(timeout=part.seconds - GRACE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            printed, _ = process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
        return "out of time", printed
    return ("well" if process.returncode == 0 else f"with {process.returncode}"), printed


def main(arguments: Sequence[str] | None = None, parts: Mapping[str, Part] = PARTS) -> int:
    """Run the parts that were asked for, and write what they report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--json", type=Path, help="instead of benchmarks/results/DATE-DEVICE.json")
    options = parser.parse_args(arguments)
    if reason := gpu.why_not():
        print(reason)
        return gpu.NO_GPU
    results = {**gpu.about(), "parts": {}}
    path = options.json or default_path(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        print(f"{name}: ", end="", flush=True)
        found = results["parts"][name] = outcome(parts[name])
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        numbers = [f"{found[word]} {word}" for word in ("passed", "failed") if word in found]
        print(f"ended {found['ended']}, {found['seconds']:.0f} s", *numbers, sep=", ")
    print(f"\n{path}")
    return 0 if all(found["ended"] == "well" for found in results["parts"].values()) else 1


def default_path(about: Mapping[str, Any]) -> Path:
    """The file that is committed: named by the date and the device."""
    device = re.sub(r"\W+", "-", about["device"].lower())
    return machine.ROOT / "benchmarks" / "results" / f"{about['date']}-{device}.json"


if __name__ == "__main__":
    sys.exit(main())
