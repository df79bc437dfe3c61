"""From a sweep to the instances table on disk: shards trained here, in parts, or on a cluster."""
