"""The documentation site: what it makes of the code, and the examples of the reference."""
