"""Tests of the shop's agents without a model, as in docs/howto/testing.md."""

from django.test import TestCase
from people.models import Organisation, User

from durable_agents import ToolContext, approve_tool_call, create_thread, get_thread, list_messages
from durable_agents.testing import ScriptedModel, calls, crash_at, fails, run_until_idle
from shop import agents
from shop.models import Note, Order, Refund, Ticket


class SupportTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.acme = Organisation.objects.create(name="Acme")
        cls.ada = User.objects.create_user("ada", organisation=cls.acme)
        cls.order = Order.objects.create(organisation=cls.acme, customer=cls.ada, number=7, total=20)

    def ask(self, prompt):
        return create_thread("support", owner=self.ada, scope=str(self.acme.pk), prompt=prompt)

    def test_a_refund_is_paid_after_an_approval(self):
        with ScriptedModel(calls("refund", number=7, amount="20"), "You have your money back.") as model:
            thread = self.ask("I want my money back.")
            run_until_idle()
            self.assertEqual(get_thread(thread).status, "awaiting_tool_results")
            approve_tool_call(thread, thread.tool_calls.get().tool_call_id, by=None)
            run_until_idle()
        self.assertEqual(Refund.objects.get().amount, 20)
        self.assertEqual(get_thread(thread).status, "completed")
        self.assertEqual(model.requests[-1].messages[-1]["content"], "refunded 20")

    def test_a_note_is_written_once_although_the_worker_dies(self):
        with ScriptedModel(calls("add_note", number=7, text="Call her."), "Done."):
            self.ask("Note it.")
            with crash_at("atomic_ran"):
                run_until_idle()
            run_until_idle()
        self.assertEqual(Note.objects.count(), 1)

    def test_the_second_model_answers_when_the_first_is_down(self):
        with ScriptedModel(fails("rate_limited"), fails("rate_limited"), "Here.") as model:
            thread = self.ask("Hello?")
            run_until_idle()
        self.assertEqual([request.model for request in model.requests][-1], "openai/shop-small")
        self.assertEqual(list_messages(thread)[-1].text, "Here.")

    def test_callbacks_and_title_are_called(self):
        with ScriptedModel("Hello."):
            thread = self.ask("Where is my order?")
            run_until_idle()
        self.assertEqual(get_thread(thread).title, "Where is my order?")
        self.assertEqual(Ticket.objects.values_list("steps", "agent_status").get(), (1, "completed"))

    def test_a_tool_is_a_function(self):
        ctx = ToolContext.for_test(owner=self.ada, scope=str(self.acme.pk))
        self.assertEqual(agents.find_order(ctx, number=7)["status"], "open")
