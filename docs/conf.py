"""How Sphinx builds the documentation: `make docs`."""

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# the notebook's process, too, takes the modules of this checkout, and shows no progress bars
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

project = "superposition-replications"
author = "superposition-replications contributors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
exclude_patterns = ["_build"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
nitpicky = True
# other projects' pages are not asked, so that this one is built without a network; machinery has no page
nitpick_ignore_regex = [
    ("py:.*", r"(?!common\.(metrics|ensemble|features|computed|notebook|statistics|style|errors)\b).*"),
    ("py:.*", r".*\b(_\w+|[A-Z])"),  # private names and type variables
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

default_role = "code"  # docstrings are written with the single backticks of Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_custom_sections = ["Source"]

html_theme = "furo"
html_title = "superposition-replications"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_show_copyright = False


def setup(app: Any) -> None:
    """Have napoleon read the first line of a variable's docstring as text, not as `type: text`."""

    def begin_with_a_comment(app: Any, what: str, *rest: Any) -> None:
        if what in ("attribute", "data", "property"):
            rest[-1][:0] = ["..", ""]  # the lines

    app.connect("autodoc-process-docstring", begin_with_a_comment, priority=400)  # napoleon has 500
