"""A policy with mistakes in it: what a handler of ours may raise, each at another action."""

from typing import Any

from durable_agents.policies import OwnerPolicy

MISTAKES: dict[str, Exception] = {
    "send": KeyError("tenant"),
    "stop": AttributeError("no attribute 'tenant'"),
    "resume": TypeError("unsupported operand"),
    "edit": ValueError("invalid literal"),
    "answer": OverflowError("too large"),
    "approve": RuntimeError("broken"),
}


class BrokenPolicy(OwnerPolicy):
    """Lets owners view and nothing else: each action raises."""

    def allows(self, request: Any, action: str, **about: Any) -> bool:
        """Raise what is to be raised at this action."""
        if action in MISTAKES and about.get("thread") is not None:
            raise MISTAKES[action]
        return super().allows(request, action, **about)
