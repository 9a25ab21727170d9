"""The demo: a small Django project that uses `durable_agents` as any project would."""
