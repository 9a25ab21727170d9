"""The demo's ASGI application, with the agents of `tests.shaken_delivery`."""

from demo_project.asgi import application  # loads the apps, which the imports below need

# isort: split
from durable_agents import Agent
from tests.lifecycle.stage import again, once, plain

__all__ = ["application", "declare"]

THREADS = 24


def declare() -> list[str]:
    """Declare an agent for each thread, and return their names.

    A history claims all that is due for its agent, so no two histories share an agent.
    """
    tools = [plain, again, once]
    names = ["tested", *(f"shaken{number}" for number in range(THREADS))]
    for name in names:
        Agent(name, model="openai/x", public=True, max_steps=6, tools=tools)
    return names[1:]


NAMES = declare()
