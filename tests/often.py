"""The command `replicate`, with checkpoints inside shards many times a second: what `tests.kills` kills."""

import sys

from common.__main__ import main
from common.runs import shard

# also in workers, which import this module too
shard.PARTIAL_S, shard.PARTIAL_SHARE = 0.1, 1.0

if __name__ == "__main__":
    sys.exit(main())
