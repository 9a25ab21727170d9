"""Ids of tool calls in a history, in the format that the vendor of a model accepts.

Mistral only accepts ids of nine letters and digits, whoever serves its models: Mistral itself, Azure, Vertex AI,
Bedrock, OpenRouter, or a server that has its own names for them. Every other vendor accepts such ids too, so all ids
that are generated here have that format.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Collection, Sequence
from itertools import count

from durable_agents.llm.types import Message

LENGTH = 9
"""Mistral: "Tool call id was … but must be a-z, A-Z, 0-9, with a length of 9" (mistral-common, request validator)."""

_ALPHABET = string.ascii_letters + string.digits
_FORMS = (
    # mistral, ministral, codestral, devstral, magistral, mathstral; mixtral, pixtral, voxtral
    (re.compile(r"[a-z](?:s|x)tral", re.IGNORECASE), re.compile(rf"[a-zA-Z0-9]{{{LENGTH}}}")),
    # litellm puts Google's signatures of tool calls into the ids of the calls.
    (re.compile(r"gemini", re.IGNORECASE), re.compile(r".+", re.DOTALL)),
    # Anthropic: tool_use.id matches ^[a-zA-Z0-9_-]+$; Bedrock: toolUseId is such a text of 64 characters at most.
    (re.compile(r"claude|^bedrock/", re.IGNORECASE), re.compile(r"[a-zA-Z0-9_-]{1,64}")),
    # OpenAI: "Invalid 'messages[2].tool_calls[0].id': string too long. Expected a string with maximum length 40".
    (re.compile(r"^(?:openai|azure)/|^(?:gpt|o)-?\d"), re.compile(r"[!-~]{1,40}")),
)
_FORM_OF_OTHERS = re.compile(r"[!-~]{1,64}")


def fits(call_id: str, model: str) -> bool:
    """Whether the vendor of the model accepts this id."""
    form = next((form for name, form in _FORMS if name.search(model)), _FORM_OF_OTHERS)
    return form.fullmatch(call_id) is not None


def short_id(seed: str, taken: Collection[str] = ()) -> str:
    """Return nine letters and digits, the same for the same seed in every process; another id if it is taken."""
    for number in count():
        digest = hashlib.sha256(f"{seed}\n{number}".encode("utf-8", "surrogatepass")).digest()
        value, letters = int.from_bytes(digest), []
        for _ in range(LENGTH):
            value, index = divmod(value, len(_ALPHABET))
            letters.append(_ALPHABET[index])
        if (made := "".join(letters)) not in taken:
            return made
    raise AssertionError("not reached")


class CallIds:
    """Assigns the ids of one history for one model, call by call from the beginning, each id once.

    The ids of earlier calls do not change when more follow.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._taken: set[str] = set()

    def give(self, tool_call_id: str, *, own: str = "") -> str:
        """Return the id of the next call: ``own``, the provider's id, if it is valid, else one derived from ours."""
        fresh = bool(own) and own not in self._taken and fits(own, self.model)
        given = own if fresh else short_id(tool_call_id, self._taken)
        self._taken.add(given)
        return given

    def take(self, ids: Sequence[str]) -> bool:
        """Mark these ids as taken, if none of them is."""
        if len(set(ids)) < len(ids) or not self._taken.isdisjoint(ids):
            return False
        self._taken.update(ids)
        return True


def fitted(message: Message, model: str) -> Message:
    """Return the message with ids that the model's vendor accepts, for a call and its result alike: a project may have
    added its own messages to the history.
    """
    made: Message = {**message}
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [{**call, "id": _fitting(call["id"], model)} if call.get("id") else call for call in calls]
    if call_id := message.get("tool_call_id"):
        made["tool_call_id"] = _fitting(call_id, model)
    return made


def _fitting(call_id: str, model: str) -> str:
    return call_id if fits(call_id, model) else short_id(call_id)
