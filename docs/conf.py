"""Sphinx configuration: ``sphinx-build -W docs results/docs``."""

from importlib import metadata

project = "gammastar"
author = "The gammastar developers"
release = metadata.version("gammastar")
extensions = ["myst_nb"]  # Markdown and executed notebooks
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # outputs are kept: python docs/notebooks/execute.py, and a test runs every cell
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"gammastar {release}"
exclude_patterns = ["_build"]
