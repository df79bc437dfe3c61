"""The picture in README.md and in the documentation: the phase diagrams and the top of the report.

`python -m docs.picture` takes both from `results/`, where `replicate run` puts them, or from a given folder.
It needs Chromium.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).with_name("picture.png")
FIGURES = "toy_models_of_superposition/phase_diagram/*/*/figures/{}_features.png"
WIDTH, HEAD = 1200, 245
"""The width of the picture, and how much of the report's page it shows, in pixels."""
PAGE = """<!doctype html>
<style>
body { margin: 0; background: white }
img, iframe { display: block; width: 100vw; border: 0 }
</style>
"""


def main(results: Path) -> None:
    """Draw the picture from these results.

    Raises:
        SystemExit: if there is no Chromium, no report or no figure.
    """
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    figures = [path for n in ("two", "three") for path in sorted(results.glob(FIGURES.format(n)))[:1]]
    report = results / "report" / "report.html"
    if chromium is None or len(figures) < 2 or not report.exists():
        sys.exit(f"{results}: Chromium, the phase diagrams and report/report.html are needed")
    images = "".join(f'<img src="{path.resolve().as_uri()}">' for path in figures)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        frame = f'<iframe src="{report.resolve().as_uri()}" height="{HEAD}" scrolling="no"></iframe>'
        page.write_text(PAGE + images + frame, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=10000"]
        size = f"--window-size={WIDTH},{sum(map(_shown_height, figures)) + HEAD}"
        subprocess.run([chromium, *options, size, f"--screenshot={PICTURE}", page.as_uri()], check=True)


def _shown_height(png: Path) -> int:
    width, height = (int.from_bytes(png.read_bytes()[i : i + 4], "big") for i in (16, 20))
    return round(WIDTH * height / width)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
