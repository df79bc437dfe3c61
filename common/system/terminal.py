"""How the command prints: users' text stays text on the terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from common.system.text import line, visible

WIDTH = 170
"""The width in columns where there is no terminal."""


class Terminal(Console):
    """A console on which no text is markup, an emoji's name or a control sequence.

    A string is printed on one line, also in a table; a `Text` may have several. Colours come only from
    styles. The options are those of rich's `Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})
        if "width" not in options and not self.is_terminal:
            self.width = WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but never break lines of text where there is no terminal."""
        if not self.is_terminal and all(isinstance(one, (str, Text)) for one in objects):
            options = {"soft_wrap": True, **options}
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as it is printed."""
        return super().render_str(line(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The printed segments; only rich's own may control the terminal."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)

    def verbatim(self, text: str) -> None:
        """Print `text` with its own line breaks and no others."""
        self.file.write(visible(text))
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Continue silently, where rich would end the program."""
        self.quiet = True
