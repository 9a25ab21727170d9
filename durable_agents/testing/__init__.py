"""Test kit for projects: a scripted model, and a worker that runs in the test's process.

    from durable_agents.testing import ScriptedModel, calls, run_until_idle

    class SupportTests(TestCase):
        def test_refund(self):
            with ScriptedModel(calls("refund", order_id=7), "You have your money back.") as model:
                thread = create_thread("support", prompt="Refund order 7, please.")
                run_until_idle()
            self.assertEqual(get_thread(thread.pk).status, "completed")

The test kit works inside the transaction of a ``TestCase`` or of pytest's ``db`` fixture. It needs no broker, no
network and no litellm, and it does not sleep. See docs/howto/testing.md.
"""

from durable_agents.llm import ModelUsage
from durable_agents.testing.crashes import POINTS, SimulatedCrash, crash, crash_at
from durable_agents.testing.inline import NoScriptedModelError, NotIdleError, Ran, arun_until_idle, run_until_idle
from durable_agents.testing.pieces import calls, does, ends, fails, hangs, says, thinks
from durable_agents.testing.scripted_model import OutOfAnswersError, ScriptedModel

__all__ = [
    "POINTS",
    "ModelUsage",
    "NoScriptedModelError",
    "NotIdleError",
    "OutOfAnswersError",
    "Ran",
    "ScriptedModel",
    "SimulatedCrash",
    "arun_until_idle",
    "calls",
    "crash",
    "crash_at",
    "does",
    "ends",
    "fails",
    "hangs",
    "run_until_idle",
    "says",
    "thinks",
]
