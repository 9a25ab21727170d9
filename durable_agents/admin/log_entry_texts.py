"""The texts of the admin's log entries. They are stored in English, and translated for each reader."""

from __future__ import annotations

import re

from django.utils.translation import gettext, gettext_noop

STOPPED = gettext_noop("Stopped the run.")
RESUMED = gettext_noop("Resumed the thread.")
RETRIED = gettext_noop("Tried the failed run again.")
EXPORTED = gettext_noop("Exported the thread.")
FORKED_AS = gettext_noop("Forked as %(thread)s.")
FORKED_FROM = gettext_noop("Forked from %(thread)s.")
APPROVED = gettext_noop("Approved")
REJECTED = gettext_noop("Rejected")
POSTED_RESULT = gettext_noop("Posted the result")
POSTED_ERROR = gettext_noop("Posted an error")
SETTLED_AS_DONE = gettext_noop("Settled as done")
SETTLED_AS_FAILED = gettext_noop("Settled as failed")
RUN_AGAIN = gettext_noop("Let it run again")
CHANGED_TIME = gettext_noop("Changed the time")
CHANGED_ARGUMENTS = gettext_noop("The arguments were changed.")
REASON = gettext_noop("Reason:")

_ABOUT_THREADS = (STOPPED, RESUMED, RETRIED, EXPORTED, FORKED_AS, FORKED_FROM)
_ABOUT_CALLS = {
    *(APPROVED, REJECTED, POSTED_RESULT, POSTED_ERROR, SETTLED_AS_DONE, SETTLED_AS_FAILED, RUN_AGAIN, CHANGED_TIME)
}
_CALL = re.compile(
    rf"(?P<entry>[\w ]+): (?P<call>\S+ \(\S+\))\.(?P<changed> {re.escape(CHANGED_ARGUMENTS)})?"
    rf"(?: {re.escape(REASON)} (?P<reason>.*))?",
    re.DOTALL,
)


def about_call(entry: str, call: str, *, are_arguments_changed: bool, reason: str) -> str:
    """Return the text of an entry about a tool call. ``call`` names the tool call as ``tool_name (tool_call_id)``."""
    changed = f" {CHANGED_ARGUMENTS}" if are_arguments_changed else ""
    return f"{entry}: {call}.{changed}" + (f" {REASON} {reason}" if reason else "")


def translated(text: str) -> str:
    """Return the text of a log entry in the reader's language. Return any other text unchanged."""
    match = _CALL.fullmatch(text)
    if match and match["entry"] in _ABOUT_CALLS:
        changed = f" {gettext(CHANGED_ARGUMENTS)}" if match["changed"] else ""
        reason = f" {gettext(REASON)} {match['reason']}" if match["reason"] else ""
        return f"{gettext(match['entry'])}: {match['call']}.{changed}{reason}"
    for entry in _ABOUT_THREADS:
        before, _, after = entry.partition("%(thread)s")
        match = re.fullmatch(rf"{re.escape(before)}(\S*){re.escape(after)}", text)
        if match:
            return gettext(entry).replace("%(thread)s", match[1])
    return text
