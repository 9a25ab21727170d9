"""The AI SDK's own client, the npm packages `ai` 7 and 6, against the running demo: `python -m tests.aisdk`."""
