"""Build the documentation site: the pages in ``docs/``, with reference entries made from the code."""
