"""The documentation's site: the pages of docs/, a gallery that is run when it is built, and the API from docstrings."""

from sphinx_gallery.sorting import FileNameSortKey

project = "Phosphene"
author = copyright = "the Phosphene developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_gallery.gen_gallery"]
html_theme = "pydata_sphinx_theme"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": False, "show_prev_next": False, "header_links_before_dropdown": 7}
root_doc = "site/index"
exclude_patterns = ["site/gallery", "study/**", "studio/**", "**/README.md"]
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.xref_missing", "config.cache"]  # links to files beside the site: tests/test_docs.py checks them
autodoc_typehints = "none"
default_role = "code"
sphinx_gallery_conf = {
    "examples_dirs": "site/gallery",
    "gallery_dirs": "site/examples",
    "filename_pattern": r".*\.py",
    "within_subsection_order": FileNameSortKey,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 10_000,
    "remove_config_comments": True,
}
