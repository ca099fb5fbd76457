"""The documentation: `sphinx-build -W --keep-going docs docs/_build/html`, without network."""

import logging
import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")  # small programs: compile fast
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
logging.getLogger("jax").setLevel(logging.ERROR)

from kernelfield.theories.alternating import MOST_ENTRIES  # noqa: E402  (JAX reads the environment)

project, author, copyright = "kernelfield", "the kernelfield authors", "the kernelfield authors, Apache 2.0"
version = release = installed("kernelfield")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "plain_docstrings",
    "reference",
]
exclude_patterns = ["_build", "gallery/*.py", "gallery/*.ipynb", "gallery/*.json", "gallery/*.zip", "gallery/*.md5"]
suppress_warnings = [
    "config.cache",  # settings of sphinx-gallery hold functions
    "ref.python",  # short names of types in signatures, which several modules have
]
smartquotes = False  # "all" is a value to type
default_role = "py:obj"  # `name` in docstrings: a link where it is documented, code everywhere

nitpicky = True  # a link of a page to a name that is not documented is an error
_TYPES = r"(?!kernelfield\.).*|kernelfield\..*\.(_\w+|State|Part|Value)"  # not documented here
nitpick_ignore_regex = [("py:obj", ".*"), ("py:.*", _TYPES)]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

myst_enable_extensions = ["deflist", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"most_entries": MOST_ENTRIES}

html_theme = "furo"
html_title = "kernelfield"
html_static_path = ["_static"]
html_css_files = ["kernelfield.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#b3364a", "color-brand-content": "#b3364a"},
    "dark_css_variables": {"color-brand-primary": "#f0808f", "color-brand-content": "#f0808f"},
}

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/(?!torch_|flax_)\w+\.py$",  # these need libraries that the documentation does not
    "ignore_pattern": r"__init__\.py",
    "within_subsection_order": "reference.gallery_order",
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e6,  # seconds: times are not part of a page
    "write_computation_times": False,
    "thumbnail_size": (480, 320),
    "abort_on_example_error": False,
    "download_all_examples": False,
    "only_warn_on_example_error": False,
}
