"""Sphinx configuration."""

from sklearn_difffeat import __version__

project = "sklearn_difffeat"
author = copyright = "the sklearn_difffeat developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
numpydoc_show_class_members = False
exclude_patterns = ["_build"]
html_theme = "furo"
# Links to model cards and the licence lead out of the documentation's folder.
suppress_warnings = ["myst.xref_missing"]
