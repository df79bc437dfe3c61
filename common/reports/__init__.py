"""Verdicts and figures as a web page, as tables, and as machine-readable files."""
