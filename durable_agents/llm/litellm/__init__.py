"""The models behind litellm, and what is repaired around it. Only this package imports litellm."""
