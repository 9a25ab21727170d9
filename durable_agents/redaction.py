"""Redact secrets from texts, so that no secret is stored or logged.

Secrets are the API keys in the settings of agents and in environment variables. Errors of providers and libraries often
include the arguments of a call, and so may contain secrets. These errors are logged, and stored for the admin.
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
"""How many secrets are remembered; the least recent are forgotten. There is a limit, because ``configure`` may return a
different key for each user.
"""

_IS_SECRET = re.compile(r"(key|token|secret|password|credentials?|authorization|cookie)$", re.IGNORECASE)
_known: OrderedDict[str, None] = OrderedDict()


def remember(settings: Mapping[str, object]) -> None:
    """Treat the values of keys like ``api_key``, at any depth of a model's settings, as secrets from now on."""
    for secret in _secrets_of(settings):
        _known[secret] = None
        _known.move_to_end(secret)
    while len(_known) > MAX_KNOWN:
        _known.popitem(last=False)


def redacted(text: str) -> str:
    """Return the text with every known secret masked."""
    # Mask the longest secret first. A shorter secret may be part of it, and masking that first would reveal the rest.
    for secret in sorted({*_known, *_secrets_of(os.environ)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def described(error: BaseException) -> str:
    """Return the type and the redacted text of an error, for the admin and the log."""
    return redacted(f"{type(error).__name__}: {error}")


class Redacting(logging.Filter):
    """A logging filter that removes secrets from messages. Use it for the loggers of libraries that get API keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message. Return True, so that no record is dropped."""
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
        # The key in ``Bearer sk-1234`` is also masked where it occurs without the word ``Bearer``.
        forms = {value, value.rpartition(" ")[2]}
        yield from (text for text in forms if is_secret and len(text) >= MIN_CHARS)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for item in value:
            yield from _secrets_of(item, is_secret=is_secret)
