"""Verdicts and figures as a page for people, as tables, and as files for machines."""
