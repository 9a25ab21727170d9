"""Translated texts of the elements `<durable-chat>` and `<durable-thread-list>`, and of the page without scripts."""

from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from durable_agents.exceptions import ErrorKind

TEXTS: dict[str, str | Promise] = {
    "answering": _("The assistant is answering."),
    "approve": _("Approve"),
    "archive": _("Archive"),
    "input": _("Arguments"),
    "assistant": _("Assistant"),
    "attach": _("Attach files"),
    "cancel": _("Cancel"),
    "chats": _("Chats"),
    "complete": _("The answer is complete."),
    "conversation": _("Conversation"),
    "copied": _("Copied"),
    "copy": _("Copy"),
    "delete": _("Delete"),
    "denied": _("Rejected"),
    "done": _("Done"),
    "edit": _("Edit"),
    "failed": _("Failed"),
    "forbidden": _("You may not see this chat."),
    "good": _("Good answer"),
    "bad": _("Bad answer"),
    "invalid": _("The arguments are not valid JSON."),
    "jump": _("Jump to the latest message"),
    "loadMore": _("Show more"),
    "message": _("Message"),
    "more": _("More actions"),
    "noChats": _("No chats yet."),
    "note": _("Note to the assistant"),
    "offline": _("You are offline."),
    "older": _("Show earlier messages"),
    "output": _("Output"),
    "outdated": _("Reload this page."),
    "preparing": _("Preparing"),
    "queued": _("Queued"),
    "reconnecting": _("Reconnecting…"),
    "recovering": _("The answer was interrupted and will go on."),
    "regenerate": _("Answer again"),
    "reject": _("Reject"),
    "remove": _("Remove"),
    "rename": _("Rename"),
    "resume": _("Continue"),
    "retry": _("Try again"),
    "running": _("Running"),
    "save": _("Save and send"),
    "search": _("Search chats"),
    "send": _("Send"),
    "sending": _("Sending…"),
    "stop": _("Stop"),
    "stopped": _("You stopped this answer."),
    "thinking": _("Thinking…"),
    "thought": _("Thoughts"),
    "unauthorized": _("You are signed out."),
    "unsent": _("Not sent."),
    "untitled": _("Untitled chat"),
    "waits": _("Waits for you"),
    "waitsForOthers": _("Waits for somebody else"),
    "welcome": _("How can I help?"),
    "you": _("You"),
}
"""Texts of the elements, by key. The keys and the English texts must be the same as in `TEXTS` in `element.js`. A test
compares them.
"""

ERRORS: dict[str, str] = {
    **{kind.value: kind.safe_message for kind in ErrorKind},
    "agent_not_found": gettext_noop("There is no such assistant."),
    "agent_removed": gettext_noop("This assistant no longer exists. You can still read and delete this chat."),
    "approval_expired": gettext_noop("The approval has expired. Send a message to go on."),
    "database_unavailable": gettext_noop("The database does not answer. Try again soon."),
    "message_not_found": gettext_noop("This message is no longer there."),
    "permission_denied": gettext_noop("You may not do this."),
    "requests_throttled": gettext_noop("Too many requests. Try again soon."),
    "sends_throttled": gettext_noop("Too many messages. Try again soon."),
    "thread_busy": gettext_noop("Wait until the answer is complete, or stop it first."),
    "thread_not_found": gettext_noop("You may not see this chat."),
    "too_large": gettext_noop("The message or a file is too large."),
    "too_many_running": gettext_noop("Too many answers are being written. Wait until one is complete."),
    "tool_call_not_pending": gettext_noop("This call no longer waits for an answer."),
    "unsupported_media_type": gettext_noop("Files of this type are not accepted."),
}
"""A short English text for each error code, to be translated.

The message of an error is more precise, but always in English. Readers of other languages see the translation of the
short text instead, in the chat element, the API and the admin.
"""


WITHOUT_SCRIPTS: dict[str, str | Promise] = {
    "back": _("Back to the chat"),
    "cancel_request": _("Cancel the request"),
    "encoding": _("The form must be sent as application/x-www-form-urlencoded."),
    "expired": _("This form has expired. Go back, reload the page and try again."),
    "reload": _("Reload to see what is new"),
    "unsuccessful": _("That did not work."),
    "written": _("You wrote:"),
}
"""Further texts for readers whose browsers run no scripts."""


def error_text(code: str, message: str) -> str:
    """Return the short text for an error code in the reader's language. If `ERRORS` has no text, return ``message``."""
    return gettext(ERRORS[code]) if code in ERRORS else message


def localized(code: str, message: str) -> str:
    """Return the translated text for an error code. If there is no translation, as in English, return ``message``."""
    text = error_text(code, message)
    return message if text == ERRORS.get(code) else text


def translated_errors() -> dict[str, str]:
    """Return the translations of `ERRORS` under the keys that the chat element uses. Leave out untranslated texts."""
    texts = {f"error:{code}": (english, gettext(english)) for code, english in ERRORS.items()}
    return {key: text for key, (english, text) in texts.items() if text != english}
