"""Parts and chunks: cleaned, checked, folded, and told to clients and models."""

import json

import pytest

from durable_agents import InvalidPartsError, TooLargeError
from durable_agents.parts import CallOutcome, assemble, close, fold, parse_arguments, text_of, user_parts
from durable_agents.strictjson import clean


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("\U0001f600", "\U0001f600"),
        (
            {"k\x00": ["\udfff", {"x": ("a", 1, None, 1.5, True)}]},
            {"k\ufffd": ["\ufffd", {"x": ["a", 1, None, 1.5, True]}]},
        ),
    ],
)
def test_what_cannot_be_stored_is_replaced_and_nothing_else(given, cleaned):
    """In every string, however deep."""
    assert clean(given) == cleaned


def test_what_is_cleaned_can_be_encoded():
    """Any text that Python can hold."""
    json.dumps(clean({"x": "".join(map(chr, range(0xD7F0, 0xE010)))}), ensure_ascii=False).encode()


def test_the_text_of_parts_is_that_of_the_text_parts():
    """A blank line between them; reasoning and calls are no text."""
    parts = [{"type": "text", "text": "a"}, {"type": "reasoning", "text": "b"}, {"type": "text", "text": ""}]
    assert text_of([*parts, {"type": "text", "text": "c"}]) == "a\n\nc"


def test_a_prompt_becomes_one_text_part():
    """Cleaned."""
    assert user_parts("Hi\x00", None, max_text_chars=10) == [{"type": "text", "text": "Hi\ufffd"}]


def test_a_part_keeps_only_what_belongs_to_it():
    """A client cannot smuggle in state."""
    given = [{"type": "text", "text": "Hi", "state": "done", "providerMetadata": {}}]
    assert user_parts(None, given, max_text_chars=10) == [{"type": "text", "text": "Hi"}]


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text"}],
        [{"type": "text", "text": 7}],
        [{"type": "text", "text": " \n"}],
        [{"type": "step-start"}],
        [{"type": "reasoning", "text": "a"}],
        [{"type": "tool-add", "toolCallId": "c", "state": "output-available", "output": 1}],
        [{"type": "source-url", "url": "https://example.org"}],
        [{"type": "data-x", "data": {}}],
        [{"type": ["text"], "text": "a"}],
        [{}],
        ["text"],
        [None],
    ],
)
def test_parts_that_a_user_may_not_send_are_refused(parts):
    """Whatever a client makes up."""
    with pytest.raises(InvalidPartsError):
        user_parts(None, parts, max_text_chars=10)


def test_the_length_of_all_parts_counts():
    """The limit is the message's."""
    parts = [{"type": "text", "text": "a" * 6}] * 2
    assert user_parts(None, parts, max_text_chars=12) == parts
    with pytest.raises(TooLargeError):
        user_parts(None, parts, max_text_chars=11)


PNG = "iVBORw0KGgo="


def png(**changes):
    """Return the part of a small file as a browser sends it."""
    part = {"type": "file", "mediaType": "image/png", "filename": "dot.png", "url": f"data:image/png;base64,{PNG}"}
    return {key: value for key, value in {**part, **changes}.items() if value is not None}


def files(*parts, max_file_bytes=1000):
    """Return the checked parts of a message of files."""
    return user_parts(None, list(parts), max_text_chars=10, max_file_bytes=max_file_bytes)


def test_a_file_is_a_message():
    """With or without words and a name."""
    assert files(png()) == [png()]
    assert files(png(filename=None), {"type": "text", "text": ""}) == [png(filename=None), {"type": "text", "text": ""}]


def test_a_file_keeps_only_what_belongs_to_it():
    """What it is said to be is what it is for everybody: the type within the URL is not believed."""
    url = f"data:text/html;charset=utf-8;base64,{PNG}"
    assert files(png(mediaType="IMAGE/png", url=url, filename="a\x00", providerMetadata={})) == [
        png(filename="a\ufffd")
    ]
    assert files(png(filename="")) == [png(filename=None)]


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "https://example.org/dot.png",
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "blob:abc",
        PNG,
        "data:image/png," + PNG,
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,nonsense!",
        "data:image/png;base64,iVBORw0KGg",
        "data:image/png;base64,iVBO\nRw0KGgo=",
        "data:image/png;base64,\u0130VBORw0KGgo=",
        "data:" + "x" * 400 + ";base64," + PNG,
        " data:image/png;base64," + PNG,
    ],
    ids=lambda url: str(url)[:30],
)
def test_a_file_that_is_not_in_the_message_is_refused(url):
    """The server fetches nothing that a client names, and stores no nonsense."""
    with pytest.raises(InvalidPartsError):
        files(png(url=url))


@pytest.mark.parametrize("media_type", ["image", "image/", "a b/c", "image/p\nng", 7, ["image/png"], "x/" + "y" * 200])
def test_a_file_without_a_sane_media_type_is_refused(media_type):
    """Models and browsers act by it."""
    with pytest.raises(InvalidPartsError):
        files(png(mediaType=media_type))


@pytest.mark.parametrize("filename", [7, "x" * 201, ["a"]])
def test_a_file_without_a_sane_name_is_refused(filename):
    """None at all is fine."""
    with pytest.raises(InvalidPartsError):
        files(png(filename=filename))


def test_the_bytes_of_all_files_count():
    """Decoded; the limit is the message's."""
    assert len(files(png(), png(), max_file_bytes=16)) == 2
    with pytest.raises(TooLargeError):
        files(png(), png(), max_file_bytes=15)
    with pytest.raises(TooLargeError):
        files(png(), max_file_bytes=7)


def test_the_limit_of_files_is_the_projects(settings):
    """Where the caller does not say."""
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 7}
    with pytest.raises(TooLargeError):
        user_parts(None, [png()], max_text_chars=10)
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 8}
    assert user_parts(None, [png()], max_text_chars=10) == [png()]


CHUNKS = [
    {"type": "start-step"},
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "Hm"},
    {"type": "reasoning-end", "id": "r", "providerMetadata": {"x": {"signature": "s"}}},
    {"type": "text-start", "id": "t"},
    {"type": "text-delta", "id": "t", "delta": "One "},
    {"type": "text-delta", "id": "t", "delta": "two"},
    {"type": "text-end", "id": "t"},
    {"type": "tool-input-start", "toolCallId": "c", "toolName": "add"},
    {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": '{"a"'},
    {"type": "tool-input-available", "toolCallId": "c", "toolName": "add", "input": {"a": 1}},
]


def test_chunks_fold_into_the_parts_that_clients_build():
    """In the order in which they began."""
    assert fold(CHUNKS) == [
        {"type": "step-start"},
        {"type": "reasoning", "text": "Hm", "state": "done", "providerMetadata": {"x": {"signature": "s"}}},
        {"type": "text", "text": "One two", "state": "done"},
        {"type": "tool-add", "toolCallId": "c", "state": "input-available", "input": {"a": 1}},
    ]


def test_every_beginning_of_a_stream_folds():
    """A snapshot may be taken between any two chunks."""
    for count in range(len(CHUNKS) + 1):
        parts = fold(CHUNKS[:count])
        assert {part.get("state") for part in parts} <= {
            None,
            "streaming",
            "done",
            "input-streaming",
            "input-available",
        }


def test_parts_of_an_attempt_that_ended_early_are_closed():
    """A call whose arguments never came is left out."""
    assert close(fold(CHUNKS[:6])) == [*fold(CHUNKS[:4]), {"type": "text", "text": "One ", "state": "done"}]
    assert close(fold(CHUNKS[:10])) == fold(CHUNKS[:8])


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ('{"a": "\\u0000"}', {"a": "\ufffd"}),
        ('{"a": 1', None),
        ("[1]", None),
        ('"a"', None),
        ("null", {}),
        (" \n", {}),
        ('""', {}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ("{}{}", {}),
        ('{"a": NaN}', None),
        ('{"a": -Infinity}', None),
        ('{"a": 1e999}', None),
        ('{"a": ' + "1" * 5000 + "}", None),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", None),
        ('{"a": ' + "[" * 700 + "]" * 700 + "}", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_arguments_are_a_json_object_or_nothing(raw, arguments):
    """A model may write anything; what says nothing is none, what no database stores and no stack holds is refused."""
    assert parse_arguments(raw) == arguments


def outcome(status, **facts):
    """Return a call with its outcome."""
    return CallOutcome(
        tool_call_id="c", provider_call_id="p", tool_name="add", arguments={"a": 1}, status=status, **facts
    )


@pytest.mark.parametrize(
    ("status", "state", "more"),
    [
        ("approval_requested", "approval-requested", {"approval": {"id": "c"}}),
        ("pending", "input-available", {}),
        ("running", "input-available", {}),
        ("completed", "output-available", {"output": None}),
        ("failed", "output-error", {"errorText": "The tool call failed."}),
        ("expired", "output-error", {"errorText": "The tool call failed."}),
        ("cancelled", "output-error", {"errorText": "The tool call failed."}),
        ("unknown", "output-error", {"errorText": "The tool call failed."}),
        ("denied", "output-denied", {}),
    ],
)
def test_a_call_is_shown_by_its_status(status, state, more):
    """Optional fields are absent, never null; an output of null is an output."""
    assert outcome(status).part() == {"type": "tool-add", "toolCallId": "c", "state": state, "input": {"a": 1}, **more}


@pytest.mark.parametrize("status", ["pending", "running"])
def test_the_progress_of_an_open_call_is_a_preliminary_output(status):
    """A call that waits for its next attempt still shows how far the last one was."""
    part = outcome(status, progress=0.5, decision_reason="").part()
    assert part.items() >= {"state": "output-available", "output": 0.5, "preliminary": True}.items()
    assert "approval" not in part


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "approval_requested"])
def test_progress_is_not_shown_after_the_outcome(status):
    """The outcome takes its place."""
    assert outcome(status, progress=0.5).part() == outcome(status).part()


@pytest.mark.parametrize(
    ("status", "approval"),
    [
        ("running", None),
        ("completed", {"id": "c", "approved": True}),
        ("failed", {"id": "c", "approved": True}),
        ("denied", {"id": "c", "approved": False}),
    ],
)
def test_a_decision_stands_with_the_outcome(status, approval):
    """While an approved call runs, its part is that of any other; a reason is told where one was given."""
    assert outcome(status, decision_reason="").part().get("approval") == approval
    with_reason = None if approval is None else approval | {"reason": "So."}
    assert outcome(status, decision_reason="So.").part().get("approval") == with_reason


def test_the_parts_of_a_step_have_their_outcomes_filled_in():
    """What the rows say stands above what was streamed."""
    parts = fold(CHUNKS)
    filled = assemble(parts, {"c": outcome("completed", result=2)})
    assert filled[:3] == parts[:3]
    assert (filled[3]["state"], filled[3]["output"]) == ("output-available", 2)
    assert parts[3]["state"] == "input-available"


def test_a_result_is_told_to_the_model_as_text():
    """Text as it is, anything else as JSON."""
    assert outcome("completed", result="ä").model_text(max_bytes=10) == "ä"
    assert outcome("completed", result={"a": "ä"}).model_text(max_bytes=20) == '{"a": "ä"}'
    assert outcome("completed").model_text(max_bytes=10) == "null"
