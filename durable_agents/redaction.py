"""Mask secrets in texts, so that no secret is stored or logged.

Secrets are the API keys in agents' settings and in environment variables. The errors of providers and libraries often
repeat the arguments of a call, and these may include an API key.
"""

from __future__ import annotations

import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

MASK = "[secret]"
MIN_CHARS = 8
"""The minimum length of a secret. Shorter values are not keys, and would match other text by chance."""
MAX_KNOWN = 1000
"""How many secrets are remembered at most. If there are more, the oldest are forgotten. The limit is needed because the
``configure`` function of an agent may return a different key for each user.
"""

_IS_SECRET = re.compile(r"(key|token|secret|password|credentials?|authorization|cookie)$", re.IGNORECASE)
_known: OrderedDict[str, None] = OrderedDict()


def remember(settings: Mapping[str, object]) -> None:
    """From now on, treat the values of keys such as ``api_key`` as secrets. The settings are searched at any depth."""
    for secret in _secrets_of(settings):
        _known[secret] = None
        _known.move_to_end(secret)
    while len(_known) > MAX_KNOWN:
        _known.popitem(last=False)


def redacted(text: str) -> str:
    """Return the text with all known secrets masked."""
    # Mask long secrets first. A long secret can contain a shorter one, and masking the shorter one first would leave
    # the rest of the long one visible.
    for secret in sorted({*_known, *_secrets_of(os.environ)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def described(error: BaseException) -> str:
    """Return the type and the redacted text of an error, for the admin and the log."""
    return redacted(f"{type(error).__name__}: {error}")


class Redacting(logging.Filter):
    """A logging filter that masks secrets in messages. Add it to the loggers of libraries that get API keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask secrets in the message. Always return True, so that no record is dropped."""
        message = record.getMessage()
        safe = redacted(message)
        if safe != message:
            record.msg, record.args = safe, ()
        return True


def _secrets_of(value: object, *, is_secret: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in list(value.items()):
            yield from _secrets_of(item, is_secret=is_secret or bool(_IS_SECRET.search(str(name))))
    elif isinstance(value, str):
        # For ``Bearer sk-1234``, also mask ``sk-1234`` alone.
        forms = {value, value.rpartition(" ")[2]}
        yield from (text for text in forms if is_secret and len(text) >= MIN_CHARS)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for item in value:
            yield from _secrets_of(item, is_secret=is_secret)
