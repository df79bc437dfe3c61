"""What all replications share.

This folder has what a replication imports (`ensemble`, `computed`, `features`, `metrics`, `statistics`,
`style`, `errors`) and the entry points (`cli`, `notebook`, `pytest_plugin`, `template/`). The rest is
machinery, of which a replication's figures name one type, `verdicts.claims.Claims`:

- `commands`: what each command of `replicate` does
- `specs`: from a YAML file to a validated spec, and to the networks that it asks for
- `runs`: from those networks, in shards, to the instances table on disk
- `verdicts`: from the instances table and the claims in `expected/` to verdicts, compared with the record
- `reports`: verdicts and figures as a web page, as tables and as machine-readable files
- `speed`: how fast training is, compared with a plain loop and the machine's ceiling
- `system`: what differs between machines; files, streams and the terminal
"""
