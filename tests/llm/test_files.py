"""Files that a user sent, on the wire of each provider: shown to the model or named to it, never lost in silence."""

import base64

import pytest

from durable_agents.llm import Turn, openai_messages
from tests.llm.wire import anthropic, gemini, text_block
from tests.servers.model import Reply

OPENAI, CLAUDE, GEMINI = "openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-3-pro-preview"
DATA = base64.b64encode("Grüße, name".encode()).decode()
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def file(media_type, filename=None):
    """Return the part of a file as it is stored."""
    part = {"type": "file", "mediaType": media_type, "url": f"data:{media_type};base64,{DATA}"}
    return part | ({"filename": filename} if filename else {})


def messages_with(*parts, model):
    """Return the history of a user who sent these parts."""
    return openai_messages("", [Turn(role="user", parts=parts)], max_result_bytes=1000, model=model)


@pytest.fixture
def seen(server, ask, at_root):
    """Return a function that sends parts to a model and gives what its provider got of them."""

    def sent(model, *parts):
        answers = {OPENAI: Reply(text="x", delay_seconds=0), CLAUDE: anthropic(text_block("x"))}
        server.answer_with(answers.get(model, gemini(({"text": "x"},))))
        ask(model=model, messages=messages_with(*parts, model=model), settings={} if model == OPENAI else at_root)
        body = server.requests[-1]
        return body["messages"][0]["content"] if "messages" in body else body["contents"][0]["parts"]

    return sent


LOOK = {"type": "text", "text": "Look."}
SHOWN = {
    (OPENAI, "image/png"): {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
    (OPENAI, "application/pdf"): {
        "type": "file",
        "file": {"file_data": f"data:application/pdf;base64,{DATA}", "filename": "the file"},
    },
    (OPENAI, "audio/mpeg"): {"type": "input_audio", "input_audio": {"data": DATA, "format": "mp3"}},
    (OPENAI, "audio/x-wav"): {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
    (CLAUDE, "image/png"): {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
    (CLAUDE, "application/pdf"): {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": DATA},
    },
    (GEMINI, "image/png"): {"inline_data": {"data": DATA, "mime_type": "image/png"}},
    (GEMINI, "application/pdf"): {"inline_data": {"data": DATA, "mime_type": "application/pdf"}},
    (GEMINI, "audio/wav"): {"inline_data": {"data": DATA, "mime_type": "audio/wav"}},
    (GEMINI, "video/mp4"): {"inline_data": {"data": DATA, "mime_type": "video/mp4"}},
}


@pytest.mark.parametrize(("model", "media_type"), SHOWN)
def test_a_file_is_shown_to_the_model(seen, model, media_type):
    """In its provider's own format, behind the text that it was sent with."""
    text, shown = seen(model, LOOK, file(media_type, "the file"))
    assert (text["text"], shown) == ("Look.", SHOWN[model, media_type])


@pytest.mark.parametrize("model", [OPENAI, CLAUDE, GEMINI])
@pytest.mark.parametrize("media_type", ["text/csv", "application/json", "image/svg+xml", "application/ld+json"])
def test_a_file_of_text_is_shown_as_text(seen, model, media_type):
    """Every model reads that."""
    _, shown = seen(model, LOOK, file(media_type, "names.csv"))
    assert shown["text"] == "names.csv:\nGrüße, name"


@pytest.mark.parametrize("media_type", ["audio/wav", DOCX, "image/heic", "video/mp4"])
def test_a_file_that_claude_does_not_take_is_named_to_it(seen, media_type):
    """It would be lost in silence, or refused with the whole thread for ever."""
    _, named = seen(CLAUDE, LOOK, file(media_type, "talk"))
    assert named == {"type": "text", "text": f"talk:\n[A file of type {media_type}, which cannot be shown to you.]"}


@pytest.mark.parametrize("model", [OPENAI, CLAUDE, GEMINI])
def test_a_file_without_words_is_a_message(seen, model):
    """An empty text is refused by some providers."""
    shown = seen(model, {"type": "text", "text": ""}, file("image/png"))
    assert "text" not in shown[0]
    assert {"type": "text", "text": ""} not in shown


def test_a_message_without_files_stays_a_text():
    """Which every server takes, lists not being known to all of them."""
    [message] = messages_with(LOOK, {"type": "text", "text": "Well?"}, model=OPENAI)
    assert message == {"role": "user", "content": "Look.\n\nWell?"}


@pytest.mark.parametrize("media_type", ["image/png", "application/pdf", "audio/wav", "text/plain"])
def test_a_question_with_a_file_can_be_estimated(run, request_to, media_type, door):
    """For attempts that did not come to their end."""
    request = request_to(model=OPENAI, messages=messages_with(LOOK, file(media_type), model=OPENAI))

    async def estimated():
        return door.estimate(request, "One two.")

    usage = run(estimated())
    assert (usage.estimated, usage.input_tokens > 1) == (True, True)


@pytest.mark.parametrize("url", ["https://example.org/x.png", "/agents/attachments/x/", "file:///etc/passwd"])
@pytest.mark.parametrize("media_type", ["image/png", "application/pdf", "audio/wav", "text/plain", "video/mp4"])
def test_a_file_that_is_not_within_the_message_is_named_to_nobody(media_type, url):
    """A provider, or litellm for it, would fetch it."""
    [message] = messages_with({"type": "file", "mediaType": media_type, "url": url}, model=OPENAI)
    assert message["content"] == [{"type": "text", "text": "[A file that is not shown to you.]"}]
