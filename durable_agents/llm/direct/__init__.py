"""The direct model door: it calls the HTTP API of a provider itself, without litellm.

It supports Anthropic, and the providers that speak OpenAI's chat-completions format.
"""
