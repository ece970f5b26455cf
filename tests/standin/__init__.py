"""A strict stand-in for CuPy: NumPy arrays that behave as if they were on a GPU.

Tests enter it in ``sys.modules`` in CuPy's place, and minigrad cannot tell the difference. It
refuses what CuPy refuses: implicit conversion to NumPy, operands in the memory of the host, and
every function, method and keyword that CuPy does not have, as listed in ``offered.json``.
Moreover it refuses some things that CuPy lets pass, but that are mistakes in minigrad:

- calling NumPy's functions on a device array, which CuPy answers by a detour;
- lists and NumPy arrays as indices, which CuPy copies to the device each time;
- assigning to positions that an index names twice, of which CuPy leaves the result undefined;
- operands on another device than the current one, which CuPy accepts with a warning if the
  devices can read each other's memory.

And it counts how often the host waits for the device: :func:`waits`. What it says of CuPy is
checked by the table of probes, which runs on CuPy itself wherever there is a GPU.
"""

from standin.devices import waits
from standin.module import modules

__all__ = ["modules", "waits"]
