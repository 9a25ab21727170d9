"""Model calls through litellm, and workarounds for litellm's defects.

Only this package imports litellm.
"""
