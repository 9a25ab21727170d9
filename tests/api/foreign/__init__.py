"""Somebody else's project: everything that can be set is set otherwise."""
