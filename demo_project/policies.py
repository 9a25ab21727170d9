"""The demo's policy: a new thread keeps the language of the page that created it."""

from django.utils.translation import get_language

from durable_agents.policies import Asker, OwnerPolicy


class DemoPolicy(OwnerPolicy):
    """Users can access only their own threads. Workers have no request, so a thread's context says in which language
    its agent and tools answer.
    """

    def context(self, request: Asker) -> dict[str, object]:
        """Return the language of the request."""
        return {"language": get_language()}
