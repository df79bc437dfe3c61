"""The rate of each replication's quick profile on a device, as JSON: `python -m tests.gpu_rates FILE cuda`.

For `tests.gpu`. The file is written after each replication, and so has what was measured if this is
stopped.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common.errors import one_line
from common.runs.training import Devices
from common.specs.find import find_root, find_specs
from common.specs.spec import load_spec
from common.speed import bench, ceiling

QUICKLY: dict[str, Any] = {"SECONDS": 1.0, "PLAIN_SECONDS": 0.05, "FEW_SECONDS": 0.3, "SHAPES": 1}
"""Less than `replicate bench` takes: one shape of network each, the one with the least work."""


def main() -> int:
    """Measure all, or those named; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_rates", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("accelerator", choices=["cuda", "cpu"])
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    root = find_root(None)
    found: dict[str, Any] = {"ceilings": {}, "rates": [], "failed": {}}
    devices = Devices(options.accelerator, 1)

    def keep() -> None:
        options.file.write_text(json.dumps(found, indent=1), encoding="utf-8")

    with patch.multiple(bench, **QUICKLY), ceiling.Machine(devices) as machine:
        side = ceiling.LARGEST[devices.accelerator]
        flops = machine._rate(ceiling._products, 1, side, side, side)
        moved = machine._rate(ceiling._triad, HELD)
        found["ceilings"] = {
            "float32 matrix products": f"{flops / 1e12:.3g} TFLOP/s",
            f"memory, arrays of {HELD >> 20} MiB": f"{moved / 1e9:,.0f} GB/s",
            "random numbers, on the CPU": f"{machine._rate(ceiling._uniforms) / 1e9:.3g} G/s",
        }
        keep()
        for name in options.names or find_specs(root):
            began = time.monotonic()
            try:
                timed = bench.bench(load_spec(root / "replications" / f"{name}.yaml", "quick"), machine)
            except Exception as error:  # of many classes: the others are to be measured
                found["failed"][name] = one_line(error)
            else:
                found["rates"] += [
                    {
                        "name": name,
                        "shape": speed.shape,
                        "networks": speed.networks,
                        "rate": speed.ours,
                        "plain": speed.plain,
                        "of_the_ceiling": speed.ours / speed.bound.rate,
                        "ceiling": speed.bound.by,
                        "shares": speed.shares,
                        "seconds": time.monotonic() - began,
                    }
                    for speed in (timed.speeds if timed else [])
                ]
            keep()
    return 1 if found["failed"] else 0


HELD = 3 << 28
"""Bytes of the arrays that memory is measured with: too many for a cache."""

if __name__ == "__main__":
    sys.exit(main())
