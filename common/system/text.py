"""Users' text, made safe for each place where it is shown: it stays text, and nothing in it is executed.

A title, a reason, a name or a path may contain anything. This module imports nothing slow.
"""

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and line feed: terminals obey them
    "\u2028\u2029"  # line breaks to some programs, not to others
    "\u202a-\u202e\u2066-\u2069"  # they reverse the order of the text that follows
    "\ud800-\udfff\ufffe\uffff]"  # not characters: neither UTF-8 nor XML can hold them
)

_MARKDOWN = re.compile(r"[\\`*_\[\]<>&$~|]|:(?=[\w+-]+:)")


def visible(text: str) -> str:
    """`text` with U+FFFD for each character that is obeyed instead of shown, or that no file can hold."""
    return _UNSEEN.sub("\ufffd", text)


def line(text: str) -> str:
    """`text` on one line: each line break with the space around it becomes one space; all is `visible`."""
    first, *rest = text.split("\n")
    return visible(" ".join([first.rstrip(), *(part.strip() for part in rest)]).rstrip() if rest else first)


def markdown(text: str) -> str:
    """Markdown that shows `text` literally on one line, also in a table cell."""
    words = " ".join(visible(text).split())
    # an empty comment breaks up what would be the name of an emoji; a backslash does not
    return _MARKDOWN.sub(lambda sign: ":<!-- -->" if sign[0] == ":" else f"\\{sign[0]}", words)


def cell(text: str) -> str:
    """`text` for a cell of a CSV file, which a spreadsheet will not take for a formula."""
    sign = "'" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else ""
    return f"{sign}{visible(text)}"  # a lone carriage return would end the row


def counted(n: int, what: str) -> str:
    """A number of things in words: 1 claim, 2 claims."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
