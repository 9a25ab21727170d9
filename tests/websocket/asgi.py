"""The demo's ASGI application with shorter times: `TEST_SOCKETS` names constants of what goes on, and their values."""

import json
import os

from demo_project.asgi import application
from durable_agents import live_delivery_counts
from durable_agents.live import consumer, socket_checks, sse
from tests.chat import agents

__all__ = ["agents", "application"]

for _name, _value in json.loads(os.environ.get("TEST_SOCKETS", "{}")).items():
    _modules = [module for module in (consumer, live_delivery_counts, socket_checks, sse) if hasattr(module, _name)]
    assert _modules, _name
    for _module in _modules:
        setattr(_module, _name, _value)
