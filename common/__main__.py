"""The command `replicate`, also `python -m common`; starts importing what workers need."""

import os
import sys

from common.system import machine, streams
from common.system.environment import undisturbed
from common.system.text import line


def main() -> int:
    """Run `replicate` with the command line's arguments; the exit code, see `common.cli.main`."""
    os.environ.update(machine.drawing_to_files())  # before anything imports matplotlib
    with streams.guarded(), undisturbed():  # Lightning reads part of the environment when it is imported
        try:
            import fcntl  # noqa: F401  # Windows has none
        except ImportError:
            print(f"replicate: {machine.UNSUPPORTED}", file=sys.stderr)
            return 2
        try:
            from common import cli
        except KeyboardInterrupt:
            print("replicate: stopped; run the same command again to continue", file=sys.stderr)
            return 130
        return cli.main(prepare=_prepare)


def _prepare(needs_workers: bool) -> None:
    """Prepare a folder for compiled code before torch is imported, and start the fork server."""
    from common.runs import workers
    from common.system import compiling

    if note := compiling.prepare():
        print(line(f"replicate: {note}"), file=sys.stderr)
    if needs_workers:
        workers.prepare_early()


if __name__ == "__main__":
    sys.exit(main())
