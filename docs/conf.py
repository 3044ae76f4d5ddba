"""Sphinx configuration."""

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

from sklearn_difffeat import __version__

project = "sklearn_difffeat"
author = copyright = "the sklearn_difffeat developers"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # The scripts without a picture of their own are for the command line.
    "ignore_pattern": r"quickstart|missing_modality",
    "download_all_examples": False,
    "write_computation_times": False,
}
numpydoc_show_class_members = False
exclude_patterns = ["_build"]
html_theme = "furo"
# The default underlines modules, which hides the underscores in their names.
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
# Links to model cards and the licence lead out of the documentation's folder.
suppress_warnings = ["myst.xref_missing"]


def _formula(kind):
    """Write formulas as MathML, which browsers draw without a script from elsewhere."""

    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=kind))
        raise SkipNode

    return visit, None


def setup(app):
    app.add_html_math_renderer("mathml", _formula("inline"), _formula("block"))


html_math_renderer = "mathml"
