"""Do the checks work? Studies of the suite, by hand: `python -m tests.validation seeds` (or another name).

`seeds` trains the quick profile again under other seeds and counts how often a claim comes out otherwise.
`faults` plants mistakes in models, data, optimisers, metrics and judging, and says which ones are noticed, by
what. Both store what they have in --out and go on where they were stopped. `looks` judges tables of random
numbers, of which the truth is known, and counts false verdicts.
"""

import argparse
import os
import sys
from pathlib import Path

from common.errors import InputError
from common.runs.training import Devices
from common.specs.document import nearest
from common.specs.find import find_root, find_specs
from common.system.terminal import Terminal
from tests.validation import looks, planting, seeds


def main(arguments: list[str] | None = None) -> int:
    """Run the part of the study that the command line names; its exit code, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m tests.validation", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    of_seeds = parts.add_parser("seeds", help="how often claims come out otherwise under other seeds")
    of_seeds.add_argument("names", nargs="*", metavar="NAME", help="replications, paper/result; default: all")
    of_seeds.add_argument("--groups", type=_positive, default=100, help="how often the suite is run again")
    of_faults = parts.add_parser("faults", help="which mistakes are noticed, and by what")
    of_faults.add_argument("names", nargs="*", metavar="FAULT", help="default: all")
    only = "only on this replication, of those that a fault touches; may be given several times"
    of_faults.add_argument("--on", action="append", default=[], metavar="NAME", help=only)
    of_faults.add_argument("--list", action="store_true", help="only say what faults there are")
    of_looks = parts.add_parser("looks", help="how often claims are decided falsely at several looks")
    of_looks.add_argument("names", nargs="*", metavar="KIND", help=f"default: all: {', '.join(looks.KINDS)}")
    of_looks.add_argument("--share", type=float, default=1.0, help="of the tables, to see results sooner")
    for part, folder in ((of_seeds, "seeds"), (of_faults, "faults"), (of_looks, "looks")):
        part.add_argument("--workers", type=_positive, help="default: all processors")
        default = Path("results") / "validation" / folder
        part.add_argument(
            "--out", type=Path, default=default, help="where results are (default: %(default)s)"
        )
    options = parser.parse_args(arguments)
    # before any process is started, which then has it: each one has its processor for itself
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    console = Terminal()
    try:
        root = find_root()
        devices = Devices.choose("cpu", options.workers)
        if options.part == "seeds":
            names = options.names or list(find_specs(root))
            seeds.study(root, names, options.groups, devices, options.out, console)
        elif options.part == "looks":
            if unknown := [name for name in options.names if name not in looks.KINDS]:
                raise InputError(f"no kind {unknown[0]!r}; {nearest(unknown[0], list(looks.KINDS))}")
            names = options.names or list(looks.KINDS)
            looks.study(names, options.share, devices.n, options.out, console)
        elif options.list:
            planting.show(console)
        else:
            planting.study(root, options.names, options.on, devices.n, options.out, console)
    except InputError as error:
        print(f"validation: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("validation: stopped; what is done is kept", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
