"""The codes with which the server closes a websocket, and their messages."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """The reason why the server closes a websocket.

    The codes start at 4400 because daphne's websocket library, autobahn, accepts only 1000 and 3000-4999. For a
    standard code, such as 1001 (going away) or 1009 (too big), daphne would log an error. Browsers would then get 1011
    or 1006 instead.
    """

    MALFORMED = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    WRONG_VERSION = 4406
    TOO_SLOW = 4408
    SILENT = 4410
    TOO_BIG = 4413
    TOO_MANY = 4429

    @property
    def message(self) -> str:
        """The reason as a sentence. A close frame can contain at most 123 bytes."""
        return _MESSAGES[self]


_MESSAGES = {
    CloseCode.MALFORMED: "A frame is not a JSON object.",
    CloseCode.UNAUTHORIZED: "Nobody is signed in, or the sign-in has ended. Sign in, or fetch a new ticket.",
    CloseCode.FORBIDDEN: "There is nothing here that you may see.",
    CloseCode.WRONG_VERSION: "This server speaks another version of the protocol. Reload the page.",
    CloseCode.TOO_SLOW: "No hello came in time.",
    CloseCode.SILENT: "Nothing was heard for three heartbeats.",
    CloseCode.TOO_BIG: "A frame has more bytes or JSON values than the limits in the welcome frame.",
    CloseCode.TOO_MANY: "Too many frames. Wait, then connect again.",
}
