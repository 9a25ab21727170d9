"""Views for the HTML forms of ``{% durable_chat %}``, for browsers that run no scripts.

Each view extends a REST view, with the same action and the same checks. It reads a form instead of JSON. It redirects
to the page of the form instead of responding with JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import NAMESPACE_OID, uuid5

from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict
from django.template.loader import render_to_string
from django.urls import get_script_prefix
from django.utils.encoding import iri_to_uri
from django.utils.functional import Promise
from django.utils.http import url_has_allowed_host_and_scheme
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents.api.base import AgentsView
from durable_agents.api.json_bodies import bounded
from durable_agents.api.views.messages import MessageListView
from durable_agents.api.views.threads import ResumeView, StopView, ThreadListView
from durable_agents.api.views.tool_calls import ApproveView, RejectView
from durable_agents.api.visitor_csrf import is_csrf_failure
from durable_agents.chat_texts import TEXTS, WITHOUT_SCRIPTS, error_text
from durable_agents.conf import config
from durable_agents.exceptions import TooLargeError

TITLE_CHARS = 60


class FormParser(BaseParser):
    """A parser for a form of at most ``MAX_BODY_BYTES`` bytes."""

    media_type = "application/x-www-form-urlencoded"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, object] | None = None
    ) -> dict[str, str]:
        """Return the last value of each field. Raises TooLargeError if the form is too large."""
        return QueryDict(bounded(stream, config().max_body_bytes), encoding="utf-8").dict()


class PageRenderer(BaseRenderer):
    """A renderer for responses that are complete HTML pages."""

    media_type = "text/html"
    charset = "utf-8"

    def render(
        self,
        data: str | None,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, object] | None = None,
    ) -> str:
        """Return the page, or an empty text for a redirect."""
        return data or ""


class FormView(AgentsView):
    """The base class of views that receive forms. Each subclass also inherits from a REST view, its second base."""

    http_method_names = ["post", "options"]  # noqa: RUF012 - as in Django's View
    parser_classes = (FormParser,)
    renderer_classes = (PageRenderer,)
    schema = None
    has_token_in_body = True

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Check the request, and complete the fields of the form."""
        super().initial(request, *args, **kwargs)
        fields = cast(dict[str, str], request.data)
        # A double click sends the same text twice and must create only one message. After the browser's Back button,
        # the same form can send another text, which must become a new message. Therefore the client_id is computed from
        # the form's id and the text.
        if "client_id" in fields:
            fields["client_id"] = str(uuid5(NAMESPACE_OID, f"{fields['client_id']} {fields.get('prompt', '')}"))
        if "agent" in fields:
            fields["title"] = fields.get("prompt", "")[:TITLE_CHARS]

    def finalize_response(self, request: Request, response: Response, *args: object, **kwargs: object) -> Response:
        """Return a redirect to the page of the form, or a page with the error."""
        result = response.data or {}
        if response.status_code >= 400:
            headers = {name: response[name] for name in ("Retry-After",) if response.has_header(name)}
            page = Response(self.error_page(request, result), status=response.status_code, headers=headers)
        else:
            created = None if "thread_id" in kwargs else result["id"]
            page = Response(status=303, headers={"Location": self.page_of_form(request, new_thread=created)})
        return super().finalize_response(request, page, *args, **kwargs)

    def error_page(self, request: Request, error: Mapping[str, Any]) -> str:
        """Return a page with the error message, and with the text that the user wrote."""
        code, detail = str(error.get("code", "")), str(error.get("detail", ""))
        context = {
            "texts": TEXTS | WITHOUT_SCRIPTS,
            "error": self.error_text(code, detail),
            "prompt": self.fields(request).get("prompt", ""),
            "page": self.page_of_form(request),
        }
        return render_to_string("durable_agents/form_error.html", context)

    @staticmethod
    def error_text(code: str, detail: str) -> str | Promise:
        """Return the text for an error, in the reader's language."""
        if is_csrf_failure(detail):
            return WITHOUT_SCRIPTS["expired"]
        # The forms contain no files. ``unsupported_media_type`` can only mean that the encoding of the form is wrong.
        return WITHOUT_SCRIPTS["encoding"] if code == "unsupported_media_type" else error_text(code, detail)

    def page_of_form(self, request: Request, *, new_thread: str | None = None) -> str:
        """Return the URL of the page that contains the form, from the form's field ``next``.

        If this URL is missing or belongs to another site, use the URL of the site's first page. For a new thread, add
        its id as the query parameter ``thread``.
        """
        url, hosts = self.fields(request).get("next", ""), {request.get_host()}
        if not url_has_allowed_host_and_scheme(url, allowed_hosts=hosts, require_https=request.is_secure()):
            url = get_script_prefix()
        if new_thread is not None:
            parts = urlsplit(url)
            query = QueryDict(parts.query, mutable=True)
            query["thread"] = new_thread
            url = urlunsplit(parts._replace(query=query.urlencode()))
        return iri_to_uri(url)

    @staticmethod
    def fields(request: Request) -> dict[str, str]:
        """Return the fields of the form, or an empty dict if the form cannot be read."""
        with suppress(UnsupportedMediaType, TooLargeError, SuspiciousOperation):
            # After a parser error, ``request.data`` is an empty ``QueryDict``.
            if not isinstance(request.data, QueryDict):
                return cast(dict[str, str], request.data)
        return {}


class ThreadForm(FormView, ThreadListView):
    """The form of a new chat."""


class MessageForm(FormView, MessageListView):
    """The form that sends a message."""


class StopForm(FormView, StopView):
    """The button that stops a run."""


class ResumeForm(FormView, ResumeView):
    """The button that resumes a stopped or failed run."""


class DecisionForm(FormView):
    """The base class of the forms that decide about a tool call."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Check the request, and take the id of the tool call from the form."""
        super().initial(request, *args, **kwargs)
        # The URL path does not contain the id, because the tool call ids of some providers contain slashes.
        self.kwargs["tool_call_id"] = self.fields(request).get("tool_call_id", "")


class ApproveForm(DecisionForm, ApproveView):
    """The button that approves a tool call."""


class RejectForm(DecisionForm, RejectView):
    """The button that rejects a tool call."""
