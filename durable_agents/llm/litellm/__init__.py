"""The model door that calls providers through litellm, and the repairs that litellm needs.

Only this package imports litellm.
"""
