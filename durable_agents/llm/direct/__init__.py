"""The door that calls providers itself over HTTP: those that speak OpenAI's chat-completions format, and Anthropic."""
