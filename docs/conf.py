"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

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
}
templates_path = ["_templates"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sklearn_difffeat {release}"
