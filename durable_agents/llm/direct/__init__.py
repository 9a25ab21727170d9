"""Calls to the HTTP APIs of providers without litellm.

This package supports Anthropic, and the providers that use OpenAI's chat-completions format.
"""
