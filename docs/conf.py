"""Sphinx configuration of the documentation.

python -m sphinx -W --keep-going docs build/docs
"""

import pathlib
import sys
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject, PyXRefRole

# The package of this checkout, not one that is installed.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

project = "tf_lottery"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tf_lottery"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["page.css"]

autodoc_inherit_docstrings = False  # what is Keras' is said there
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"  # of what docstrings name in single backticks

myst_heading_anchors = 3
linkcheck_anchors_ignore = [r"L\d+"]  # lines of files, which GitHub scripts in


class Name(PyXRefRole):
    """A link if the name is one of this project's, else as it stands."""

    def process_link(
        self, env: Any, node: Any, explicit: bool, title: str, target: str
    ) -> tuple[str, str]:
        """Keeps a leading dot, which Sphinx takes for a way to search."""
        _, found = super().process_link(env, node, explicit, title, target)
        return title, found


def setup(app: Sphinx) -> None:
    """Replaces the role of names; and "Variables": Keras has others."""
    app.add_role_to_domain("py", "obj", Name(), override=True)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
