"""What all replications share.

Here lies what a replication imports (`ensemble`, `computed`, `features`, `metrics`, `statistics`, `style`,
`errors`) and the ways in (`cli`, `notebook`, `pytest_plugin`, `template/`). The rest is machinery:

- `specs`: a YAML file, checked, and the networks that it asks for
- `runs`: from those networks, in shards, to the instances table on disk
- `verdicts`: from the instances table and the claims in `expected/` to verdicts, beside the record
- `reports`: verdicts and figures as a page, as tables and for machines
- `speed`: how fast training is, beside the plain way and the machine's ceiling
- `system`: what differs from machine to machine, and files, streams and the terminal
"""
