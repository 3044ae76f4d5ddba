"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from links import write_inventories

from sklearn_difffeat import __version__

project = "sklearn_difffeat"
author = copyright = "the sklearn_difffeat developers"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "links",
]
myst_heading_anchors = 3
# Types are in the docstrings, with shapes.
autodoc_typehints = "none"
numpydoc_show_class_members = False
intersphinx_mapping = write_inventories(Path(__file__).parent / "_build/inventories")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # The scripts without a picture of their own are for the command line.
    "ignore_pattern": r"quickstart|missing_modality",
    "download_all_examples": False,
    "show_memory": False,
    "doc_module": ("sklearn_difffeat",),
    "backreferences_dir": "reference/examples",
    "write_computation_times": False,
}
templates_path = ["_templates"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sklearn_difffeat {release}"
# The default underlines modules, which hides the underscores in their names.
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_search_scorer = str(Path(__file__).parent / "extensions/scorer.js")


def _formula(kind):
    """Write formulas as MathML, which browsers draw without a script from elsewhere."""

    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=kind))
        raise SkipNode

    return visit, None


def setup(app):
    app.add_html_math_renderer("mathml", _formula("inline"), _formula("block"))


html_math_renderer = "mathml"
