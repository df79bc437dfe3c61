"""What the command prints with: users' text is text on the terminal too."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from common.system.text import line, visible

WIDTH = 170
"""Columns where there is no terminal that has some."""


class Terminal(Console):
    """A console on which no text is markup, an emoji's name or a control sequence.

    A string is one line, also in a table; a `Text` may have several. Colours come from styles only. Options
    are those of rich's `Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})
        if "width" not in options and not self.is_terminal:
            self.width = WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; where no terminal breaks lines of text, nothing does."""
        if not self.is_terminal and all(isinstance(one, (str, Text)) for one in objects):
            options = {"soft_wrap": True, **options}
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as what is printed of it."""
        return super().render_str(line(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed, none of which but rich's own steers the terminal."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)

    def verbatim(self, text: str) -> None:
        """Print `text` with the line breaks that it has, and no others."""
        self.file.write(visible(text))
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Go on in silence, where rich ends the program."""
        self.quiet = True
