"""The command `replicate`, with checkpoints inside shards many times a second: what `tests.kills` kills."""

import sys

from common import fit
from common.__main__ import main

# also in workers, which import this module too
fit.PARTIAL_S, fit.PARTIAL_SHARE = 0.1, 1.0

if __name__ == "__main__":
    sys.exit(main())
