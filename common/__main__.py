"""The command `replicate`, also `python -m common`; what a run's workers need is imported beside it."""

import os
import sys

from common.system import machine, streams
from common.system.environment import undisturbed
from common.system.text import line


def main() -> int:
    """Run `replicate` with the command line's arguments; the exit code, see `common.cli.main`."""
    os.environ.update(machine.drawing_to_files())  # before anything imports matplotlib
    with streams.guarded(), undisturbed():  # of the environment Lightning reads some when it is imported
        try:
            import fcntl  # noqa: F401  # Windows has none
        except ImportError:
            print(f"replicate: {machine.UNSUPPORTED}", file=sys.stderr)
            return 2
        try:
            from common.system import compiling

            if note := compiling.prepare():
                print(line(f"replicate: {note}"), file=sys.stderr)
            if "run" in sys.argv:
                from common.runs import workers

                workers.prepare_early()
            from common import cli  # what it imports takes seconds
        except KeyboardInterrupt:
            print("replicate: stopped; the same command goes on from here", file=sys.stderr)
            return 130
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
