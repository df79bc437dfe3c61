"""The command `replicate`, also `python -m common`; what a run's workers need is imported beside it."""

import sys

from common import streams, workers


def main() -> int:
    """Run `replicate` with the command line's arguments; the exit code, see `common.cli.main`."""
    with streams.guarded():
        try:
            if "run" in sys.argv:
                workers.prepare()
            from common import cli  # what it imports takes seconds
        except KeyboardInterrupt:
            print("replicate: stopped; the same command goes on from here", file=sys.stderr)
            return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
