"""The ASGI application of these tests: the demo's, with the agents of these tests."""

from demo_project.asgi import application
from tests.chat import agents

__all__ = ["agents", "application"]
