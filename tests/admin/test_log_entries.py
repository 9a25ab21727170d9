"""The texts of log entries: stored in English, and shown in the reader's language."""

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils.translation import override

from durable_agents import create_thread, stop_thread
from durable_agents.admin import log_entry_texts
from durable_agents.admin.log_entry_texts import about_call, translated
from tests.admin.pages import APPROVAL, VIEW, decide, html
from tests.api.calls import waiting_call

TEXTS = {
    text for name, text in vars(log_entry_texts).items() if name.isupper() and isinstance(text, str) and name[0] != "_"
}


def test_every_text_has_a_german_one():
    with override("de"):
        same = [text for text in TEXTS if translated_text(text) == text]
    assert len(TEXTS) == 16
    assert same == []


def translated_text(text):
    """Return the German text of an entry, or of a part of one."""
    if text in {log_entry_texts.CHANGED_ARGUMENTS, log_entry_texts.REASON}:
        about = {"are_arguments_changed": text == log_entry_texts.CHANGED_ARGUMENTS, "reason": "x"}
        return text if text in translated(about_call(log_entry_texts.APPROVED, "pay (c1)", **about)) else "translated"
    if "thread" in text or text.endswith("."):
        return translated(text % {"thread": "1234"}).replace("1234", "%(thread)s")
    return translated(f"{text}: pay (c1).").removesuffix(": pay (c1).")


def test_what_people_wrote_stays_as_it_is():
    reason = "The arguments were changed. Reason: none.\nApproved: no (1)."
    entry = about_call(log_entry_texts.APPROVED, "pay (call_7)", are_arguments_changed=True, reason=reason)
    with override("de"):
        shown = translated(entry)
        assert shown == f"Genehmigt: pay (call_7). Die Argumente wurden geändert. Grund: {reason}"
        assert translated("Changed Title.") == "Changed Title."
    with override("en"):
        assert translated(entry) == entry


@pytest.mark.django_db
def test_the_history_of_a_thread_and_of_a_call_is_german(keeper, staff, agent, owner, settings):
    settings.LANGUAGE_CODE = "de"
    thread = create_thread(agent, owner=owner, prompt="Hi")
    keeper.post(reverse("admin:durable_agents_thread_stop", args=[thread.pk]))
    call = waiting_call(owner, **APPROVAL)
    stop_thread(thread)
    decide(staff(*VIEW, "change_toolcall"), call, "approve", reason="Paid before.")
    stored = sorted(LogEntry.objects.values_list("change_message", flat=True))
    assert [text.split()[0] for text in stored] == ["Approved:", "Stopped"]
    for row, said in ((thread, "Den Lauf gestoppt."), (call, "Grund: Paid before.")):
        page = reverse(f"admin:durable_agents_{row._meta.model_name}_history", args=[row.pk])
        assert said in html(keeper.get(page))
