"""From the instances table and the claims in `expected/` to verdicts, beside the record."""
