"""Choose ids for the tool calls in a history, so that the model's vendor accepts them.

Mistral's models accept only ids that consist of nine letters and digits, even if another server runs them (Azure,
Bedrock, OpenRouter). Some servers rename the models, so a model's name does not always show that Mistral made it. All
other vendors also accept ids of nine letters and digits. Therefore, all new ids have this form.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Collection, Sequence
from itertools import count

from durable_agents.llm.types import Message

LENGTH = 9
"""The length of the ids. Mistral's error is "Tool call id was … but must be a-z, A-Z, 0-9, with a length of 9" (request
validator of mistral-common).
"""

_ALPHABET = string.ascii_letters + string.digits
_FORMS = (
    # Mistral's models: mistral, ministral, codestral, devstral, magistral, mathstral, mixtral, pixtral, voxtral
    (re.compile(r"[a-z](?:s|x)tral", re.IGNORECASE), re.compile(rf"[a-zA-Z0-9]{{{LENGTH}}}")),
    # litellm stores Google's signatures in the ids of tool calls, so an id for Gemini can have any form.
    (re.compile(r"gemini", re.IGNORECASE), re.compile(r".+", re.DOTALL)),
    # Anthropic: tool_use.id matches ^[a-zA-Z0-9_-]+$. Bedrock: toolUseId has the same characters, at most 64.
    (re.compile(r"claude|^bedrock/", re.IGNORECASE), re.compile(r"[a-zA-Z0-9_-]{1,64}")),
    # OpenAI: "Invalid 'messages[2].tool_calls[0].id': string too long. Expected a string with maximum length 40".
    (re.compile(r"^(?:openai|azure)/|^(?:gpt|o)-?\d"), re.compile(r"[!-~]{1,40}")),
)
_FORM_OF_OTHERS = re.compile(r"[!-~]{1,64}")


def fits(call_id: str, model: str) -> bool:
    """Return whether the vendor of the model accepts this id."""
    form = next((form for name, form in _FORMS if name.search(model)), _FORM_OF_OTHERS)
    return form.fullmatch(call_id) is not None


def short_id(seed: str, taken: Collection[str] = ()) -> str:
    """Return an id of nine letters and digits that is not in ``taken``. The same arguments always give the same id."""
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
    """Assigns ids to the tool calls in one history, for one model.

    Ids are assigned in order, and no id is assigned twice. The ids of earlier calls do not change when more calls
    follow.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._taken: set[str] = set()

    def give(self, tool_call_id: str, *, own: str = "") -> str:
        """Return an id for the next call, and mark it as taken.

        ``own`` is the provider's id for the call. If ``own`` is not taken and the model's vendor accepts it, return
        ``own``. Otherwise, return a short id that is derived from ``tool_call_id``.
        """
        fresh = bool(own) and own not in self._taken and fits(own, self.model)
        given = own if fresh else short_id(tool_call_id, self._taken)
        self._taken.add(given)
        return given

    def take(self, ids: Sequence[str]) -> bool:
        """Mark these ids as taken and return True.

        If an id is already taken or occurs twice, change nothing and return False.
        """
        if len(set(ids)) < len(ids) or not self._taken.isdisjoint(ids):
            return False
        self._taken.update(ids)
        return True


def fitted(message: Message, model: str) -> Message:
    """Return the message with call ids that the model's vendor accepts.

    Messages that the project has added can have ids that the vendor refuses. This function replaces these ids. A call
    and its result get the same new id.
    """
    made: Message = {**message}
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [{**call, "id": _fitting(call["id"], model)} if call.get("id") else call for call in calls]
    if call_id := message.get("tool_call_id"):
        made["tool_call_id"] = _fitting(call_id, model)
    return made


def _fitting(call_id: str, model: str) -> str:
    return call_id if fits(call_id, model) else short_id(call_id)
