"""From the instances table and the claims in `expected/` to verdicts, compared with the record."""
