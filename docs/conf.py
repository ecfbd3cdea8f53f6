"""Settings of Sphinx; `make docs` builds the pages into build/docs."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

from sphinx.application import Sphinx
from sphinx.util import logging

project = "larq_filters"
author = "the larq_filters authors"
copyright = "the larq_filters authors, Apache License 2.0"
release = version = lqf.__version__
extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_nb",  # myst_parser, and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["README.md"]
default_role = "py:obj"  # names in docstrings become links where there is a page
html_theme = "furo"
html_title = f"larq_filters {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300  # seconds for a cell
nb_output_stderr = "remove"  # TensorFlow's lines about GPUs

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = False
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

plot_formats = [("png", 120)]
plot_html_show_formats = plot_html_show_source_link = False
plot_include_source = False
plot_working_directory = str(HERE)
plot_pre_code = """import larq_filters as lqf
import numpy as np
from matplotlib import pyplot as plt"""
plot_rcparams = {"figure.figsize": (7, 3.5), "figure.constrained_layout.use": True}

MODULES = [*(getattr(lqf, name) for name in lqf.__all__), lqf.tuning]


def every_name_has_a_page(app: Sphinx, _: object) -> None:
    """A public name that no page of the API describes is a warning, and so an error."""
    described = set(app.env.domains.python_domain.objects)
    for module in MODULES:
        for name in module.__all__:
            if f"{module.__name__}.{name}" not in described:
                message = "no page describes %s.%s"
                logging.getLogger(__name__).warning(message, module.__name__, name)


def setup(app: Sphinx) -> None:
    """Checks the pages once they are read."""
    app.connect("env-check-consistency", lambda app, env: every_name_has_a_page(app, env))
