"""The four programs with ``--device cuda``: on the stand-in, and on CuPy where there is a GPU."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")

import minigrad as mg

pytestmark = [pytest.mark.host, pytest.mark.slow]

#: Short runs on data that are there without a network.
SHORT = ["--quick", "--updates", "4", "--every", "4"]
PROGRAMS = {
    "text_generation": ["--text", "python"],
    "translation": ["--data", "digits", "--held-out", "8", "--words", "5"],
    "time_series": ["--data", "waves"],
    "speech_recognition": ["--data", "diphthongs", "--strings", "8"],
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_trains_on_a_gpu_and_goes_on_on_the_cpu(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = import_module(name)
    settings = [*SHORT, *PROGRAMS[name], "--folder", str(tmp_path)]
    with mg.device("cpu"):  # that of a user, who gives the option and nothing else
        program.main([*settings, "--device", "cuda"])
        assert "Training is done after 4 updates" in capsys.readouterr().out
        program.main(["--resume", "--updates", "6", "--folder", str(tmp_path)])
    assert "Training is done after 6 updates" in capsys.readouterr().out
