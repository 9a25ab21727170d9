"""Twelve tests of agents as a project would write them, in a plain TestCase, inside its transaction."""

from django.contrib.auth import get_user_model
from django.test import TestCase

from durable_agents import create_thread, send_message, stop_thread
from durable_agents.lifecycle import add_tool_result, approve_tool_call
from durable_agents.models import Message, ToolCall
from durable_agents.testing import (
    ScriptedModel,
    SimulatedCrash,
    calls,
    crash,
    crash_at,
    does,
    fails,
    run_until_idle,
    says,
)
from durable_agents.transcript import ui_messages
from tests.project.models import Booking
from tests.testing.shop import open_shop


def spoken(thread) -> list[tuple[str, str]]:
    """Role and text of each message of a thread."""
    messages = ui_messages(Message.objects.shown().filter(thread=thread))
    return [(m["role"], " ".join(part["text"] for part in m["parts"] if part["type"] == "text")) for m in messages]


class ShopTests(TestCase):
    """What the shop's agent does."""

    def setUp(self):
        open_shop(self)

    def ask(self, prompt="Please.", **options):
        """Run a thread to its rest."""
        thread = create_thread("shop", prompt=prompt, **options)
        self.ran = run_until_idle()
        thread.refresh_from_db()
        return thread

    def test_a_tool_is_called_and_its_result_is_told(self):
        """The model sees what it asked for."""
        with ScriptedModel(calls("add", a=2, b=3), "Five.") as model:
            thread = self.ask("2 + 3?")
        self.assertEqual(thread.status, "completed")
        self.assertEqual(spoken(thread), [("user", "2 + 3?"), ("assistant", "Five.")])
        self.assertEqual(ToolCall.objects.get(thread=thread).result, 5)
        self.assertEqual(model.requests[-1].messages[-1]["content"], "5")
        self.assertEqual(self.ran.trace, ["model shop", "tool add", "model shop"])

    def test_an_atomic_tool_books_once_though_the_worker_dies(self):
        """A crash before its commit takes the booking back, and a new worker books again."""
        with ScriptedModel(calls("book", name="Ada"), "Booked."):
            with crash_at("atomic_settled"):
                self.ask()
            self.assertEqual(Booking.objects.count(), 0)
            run_until_idle()
        self.assertEqual(list(Booking.objects.values_list("name", flat=True)), ["Ada"])

    def test_a_failed_model_call_is_tried_again_without_waiting(self):
        """Retry-After included."""
        with ScriptedModel(fails("rate_limited", retry_after_seconds=120), "At last.") as model:
            thread = self.ask()
        self.assertEqual((thread.status, len(model.requests)), ("completed", 2))
        self.assertGreater(self.ran.skipped_seconds, 100)

    def test_a_failing_tool_is_tried_again_until_it_works(self):
        """By its own retry."""
        with ScriptedModel(calls("flaky"), "Good.") as model:
            self.ask()
        self.assertEqual(model.requests[-1].messages[-1]["content"], "attempt 3")
        self.assertEqual(self.ran.trace.count("tool flaky"), 3)

    def test_a_stop_in_the_middle_of_an_answer_keeps_what_was_said(self):
        """And the model is not asked again."""
        thread = create_thread("shop", prompt="Talk.")
        with ScriptedModel([says("Once upon"), does(lambda: stop_thread(thread)), says(" a time")]) as model:
            run_until_idle()
        thread.refresh_from_db()
        self.assertEqual((thread.status, len(model.requests)), ("stopped", 1))
        self.assertEqual(spoken(thread)[-1], ("assistant", "Once upon"))

    def test_a_message_during_the_run_steers_it(self):
        """It is in the next model call."""
        thread = create_thread("shop", prompt="Talk.")
        interrupt = does(lambda: send_message(thread, "In French, please."))
        with ScriptedModel([calls("add", a=1, b=1), interrupt], "Bien sûr.") as model:
            run_until_idle()
        self.assertIn("In French, please.", [message["content"] for message in model.requests[-1].messages])
        self.assertEqual([role for role, _ in spoken(thread)], ["user", "assistant", "user", "assistant"])

    def test_the_model_is_told_of_failed_tools_and_bad_arguments(self):
        """A ToolError by its text, any other error masked, each call with one result."""
        bad = [calls("refuse"), calls("explode"), calls("add", "{no json"), calls("add", a="x"), calls("nothing")]
        with ScriptedModel(bad, "I see.") as model:
            thread = self.ask()
        results = [message["content"] for message in model.requests[-1].messages if message["role"] == "tool"]
        self.assertEqual(results[:2], ["Error: The warehouse is closed.", "Error: The tool failed."])
        self.assertIn("not a JSON object", results[2])
        self.assertIn("Invalid arguments", results[3])
        self.assertIn("no tool 'nothing'", results[4])
        self.assertEqual(thread.status, "completed")

    def test_a_model_that_calls_tools_for_ever_is_ended_by_max_steps(self):
        """The run fails, visibly."""
        open_shop(self, name="short", max_steps=3)
        with ScriptedModel(calls("add", a=1, b=1), repeat_last=True) as model:
            thread = create_thread("short", prompt="Go on.")
            run_until_idle()
        thread.refresh_from_db()
        self.assertEqual((thread.status, thread.error_code, len(model.requests)), ("failed", "max_steps", 3))

    def test_a_worker_that_dies_in_mid_answer_is_followed_by_one_that_answers(self):
        """There is one whole answer in the end."""
        with ScriptedModel([says("Half an"), does(crash)], "A whole answer."):
            thread = create_thread("shop", prompt="Well?")
            with self.assertRaises(SimulatedCrash):
                run_until_idle()
            run_until_idle()
        self.assertEqual(spoken(thread), [("user", "Well?"), ("assistant", "A whole answer.")])

    def test_two_tools_of_one_step_run_before_the_next(self):
        """One of them async, with the ORM's async methods on the test's own data."""
        Booking.objects.create(name="Bob")
        with ScriptedModel([calls("add", a=1, b=2), calls("weather", city="Oslo")], "3, and sunny.") as model:
            self.ask()
        results = [message["content"] for message in model.requests[-1].messages if message["role"] == "tool"]
        self.assertEqual(results, ["3", "Oslo: sunny, 1 bookings"])
        self.assertEqual(self.ran.model_calls, 2)

    def test_a_payment_waits_for_its_owner(self):
        """And pays what the owner has made of it, once."""
        owner = get_user_model().objects.create(username="ada")
        with ScriptedModel(calls("pay", amount=500), "Paid.") as model:
            thread = self.ask(owner=owner)
            call = ToolCall.objects.get(thread=thread)
            self.assertEqual((call.status, Booking.objects.count()), ("approval_requested", 0))
            approve_tool_call(thread, call.tool_call_id, by=owner, arguments={"amount": 50})
            run_until_idle()
        self.assertEqual(list(Booking.objects.values_list("name", flat=True)), ["paid 50"])
        self.assertIn("paid 50", model.requests[-1].messages[-1]["content"])

    def test_an_answer_from_outside_goes_on_with_the_run(self):
        """The tool is only told of the call; its result comes later."""
        with ScriptedModel(calls("ask_the_warehouse", sku="A7"), "Three are left.") as model:
            thread = self.ask()
            self.assertEqual((thread.status, len(model.requests)), ("awaiting_tool_results", 1))
            add_tool_result(thread, Booking.objects.get().name, 3)
            run_until_idle()
        self.assertEqual(spoken(thread)[-1], ("assistant", "Three are left."))
        self.assertEqual(model.requests[-1].messages[-1]["content"], "3")
