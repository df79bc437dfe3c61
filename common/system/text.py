"""Users' text, made safe for each place where it is shown: it stays text there, and nothing in it acts.

A title, a reason, a name or a path may hold anything. This module imports nothing that takes time.
"""

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and line feed: terminals obey them
    "\u2028\u2029"  # line breaks to some, not to others
    "\u202a-\u202e\u2066-\u2069"  # they turn round the order of what comes after
    "\ud800-\udfff\ufffe\uffff]"  # no characters: neither UTF-8 nor XML can hold them
)

_MARKDOWN = re.compile(r"[\\`*_\[\]<>&$~|]|:(?=[\w+-]+:)")


def visible(text: str) -> str:
    """`text` with U+FFFD for each character that acts instead of being shown, or that no file can hold."""
    return _UNSEEN.sub("\ufffd", text)


def line(text: str) -> str:
    """`text` on one line, each line break and the space around it as one space, and all of it visible."""
    first, *rest = text.split("\n")
    return visible(" ".join([first.rstrip(), *(part.strip() for part in rest)]).rstrip() if rest else first)


def markdown(text: str) -> str:
    """Markdown, also for a cell of a table, that shows `text` on one line as it is written."""
    words = " ".join(visible(text).split())
    # an empty comment parts what would be the name of an emoji; a backslash does not
    return _MARKDOWN.sub(lambda sign: ":<!-- -->" if sign[0] == ":" else f"\\{sign[0]}", words)


def cell(text: str) -> str:
    """`text` for a cell of a CSV file: a spreadsheet takes it for text too, not for a formula."""
    sign = "'" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else ""
    return f"{sign}{visible(text)}"  # a lone carriage return would end the row
