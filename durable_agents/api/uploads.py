"""Hides how files come in and go out over HTTP: bounded on the way in, harmless in a browser on the way out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import files, lifecycle
from durable_agents.api import shapes
from durable_agents.api.base import AgentsView
from durable_agents.api.inputs import NewAttachment
from durable_agents.api.operations import Gives, Operation
from durable_agents.conf import config
from durable_agents.exceptions import (
    AttachmentNotFoundError,
    PermissionDeniedError,
    ThrottledError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from durable_agents.logs import log_error
from durable_agents.media import is_shown
from durable_agents.models import Attachment
from durable_agents.policies import owner_and_scope, public_agents, public_attachment

ENVELOPE_BYTES = 64 * 1024
"""What may be around the file in the body of an upload."""
MAX_UNSENT = 100
"""Files that one sender may have uploaded and not sent; a day after the upload they are gone."""
BLOCK_BYTES = 256 * 1024
_HEADERS = {
    "Cache-Control": "private, no-cache",  # the caller may lose the right to see it: browsers ask again each time
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class AttachmentListView(AgentsView):
    """Files to be sent with a message."""

    parser_classes = (MultiPartParser,)

    @Operation(
        operation_id="uploadAttachment",
        action="send",
        body=NewAttachment,
        answers={201: Gives(shape=shapes.AttachmentJSON)},
        raises=[TooLargeError, UnsupportedMediaTypeError],
    )
    def post(self, request: Request) -> Response:
        """Upload a file, in the field `file` of a multipart form. Send it within a day, as a part of a message:
        `{"type": "file", "mediaType": ..., "url": ...}`. What it is, is told from its content."""
        if not public_agents(request, "send"):
            raise PermissionDeniedError("There is no agent that you may send files to.")
        given = self._file(request)
        owner, scope = owner_and_scope(request)
        if Attachment.objects.unsent().filter(owner=owner, scope=scope).count() >= MAX_UNSENT:
            raise ThrottledError(
                f"You have {MAX_UNSENT} files that no message carries. Send them, or come back tomorrow.",
                retry_after_seconds=3600,
            )
        claimed, filename = given.content_type or "", given.name or ""
        row = lifecycle.upload(given.read(), claimed=claimed, filename=filename, owner=owner, scope=scope)
        return Response(shapes.attachment_json(row), status=status.HTTP_201_CREATED)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """The request, with an eye on its size before anybody reads it, as the check of a form's token may."""
        self.meter = _Meter(request, max_bytes=config().max_attachment_bytes)
        request.upload_handlers.insert(0, self.meter)
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a body that says itself that it is too large, unread."""
        if _announced_bytes(request) > self.meter.max_bytes + ENVELOPE_BYTES:
            raise self.meter.error()
        super().initial(request, *args, **kwargs)

    def _file(self, request: Request) -> Any:
        """The one file of the request, which is not empty."""
        given = request.FILES
        if self.meter.is_exceeded:
            raise self.meter.error()
        found = [file for name in given for file in given.getlist(name)]
        if len(found) != 1 or "file" not in given:
            raise ValidationError({"file": "Send one file, in the field 'file' of a multipart form."})
        if not found[0].size:
            raise ValidationError({"file": "The file is empty."})
        return found[0]


def _announced_bytes(request: Request) -> int:
    """What the request says of its length; a word that is no number says nothing."""
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


class _Meter(FileUploadHandler):
    """Stops an upload as soon as its files are larger than allowed. What is left of the body is not read."""

    def __init__(self, request: HttpRequest, *, max_bytes: int) -> None:
        super().__init__(request)
        self.max_bytes = max_bytes
        self.read_bytes = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether it was stopped."""
        return self.read_bytes > self.max_bytes

    def error(self) -> TooLargeError:
        """What the sender is told."""
        return TooLargeError(f"The file has more than {self.max_bytes} bytes.")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        """Pass it on while there is room."""
        self.read_bytes += len(raw_data)
        if self.is_exceeded:
            raise StopUpload(connection_reset=True)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """The next handler has the file."""


class AttachmentView(AgentsView):
    """One of these files, or one that a message carries."""

    @Operation(
        operation_id="getAttachment",
        action="view",
        answers={200: Gives(shape=bytes, media_type="*/*")},
        raises=[AttachmentNotFoundError],
    )
    def get(self, request: Request, attachment_id: str) -> HttpResponseBase:
        """Download a file: what you have uploaded and not sent, or what a thread has that you may view."""
        row = public_attachment(request, attachment_id)
        etag = f'"{row.pk.hex}"'
        response = get_conditional_response(request._request, etag=etag) or _download(request, row)
        for name, value in {**_HEADERS, "ETag": etag}.items():
            response[name] = value
        return response


def _download(request: Request, row: Attachment) -> HttpResponseBase:
    """The file, or to a HEAD what it would come with. Browsers show only what can do nothing in them; anything else
    they get as bytes without a meaning."""
    name = row.filename or "file"
    media_type = row.media_type if is_shown(row.media_type) else "application/octet-stream"
    content_type = "text/plain; charset=utf-8" if media_type == "text/plain" else media_type
    try:
        stored = files.storage().open(row.place)
    except FileNotFoundError as error:
        log_error("a file is not in the storage", action="download", attachment=row.pk)
        raise AttachmentNotFoundError(row.pk) from error
    response = _Download(
        stored, content_type=content_type, filename=name, as_attachment=content_type == "application/octet-stream"
    )
    if request.method != "HEAD":
        return response
    stored.close()
    return HttpResponse(headers={**response.headers, "Content-Length": str(row.size)})


class _Download(FileResponse):
    """A file in pieces; under ASGI they are read in threads, since storages know no other way."""

    block_size = BLOCK_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Its pieces, one at a time."""
        pieces = iter(self)
        read = sync_to_async(lambda: next(pieces, None), thread_sensitive=False)
        while (piece := await read()) is not None:
            yield piece
