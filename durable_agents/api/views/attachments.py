"""Receive and serve files over HTTP. Uploads are limited in size, and downloads are safe for browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import attachment_storage, lifecycle
from durable_agents.api import serializers
from durable_agents.api.base import AgentsView
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.request_serializers import NewAttachment
from durable_agents.conf import config
from durable_agents.exceptions import (
    AttachmentNotFoundError,
    PermissionDeniedError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from durable_agents.live.response_backpressure import at_readers_pace
from durable_agents.logs import log_error
from durable_agents.media_types import is_shown
from durable_agents.models import Attachment
from durable_agents.policies import owner_and_scope, public_agents, public_attachment

ENVELOPE_BYTES = 64 * 1024
"""The number of bytes that an upload's body may have in addition to the file."""
BLOCK_BYTES = 256 * 1024
_HEADERS = {
    # Browsers must ask the server each time, because the user may have lost access.
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class AttachmentListView(AgentsView):
    """A view for uploading a file before the message that contains it is sent."""

    parser_classes = (MultiPartParser,)

    @Operation(
        operation_id="uploadAttachment",
        action="send",
        body=NewAttachment,
        answers={201: Gives(shape=serializers.AttachmentJSON)},
        raises=[TooLargeError, UnsupportedMediaTypeError],
    )
    def post(self, request: Request) -> Response:
        """Upload a file, in the field `file` of a multipart form. Send the file within a day, as a part of a message:
        `{"type": "file", "mediaType": ..., "url": ...}`. The type of the file is detected from its content.
        """
        if not public_agents(request, "send"):
            raise PermissionDeniedError("There is no agent that you may send files to.")
        # Accessing ``FILES`` reads the body, so the size of the files is known only after this line.
        uploads = request.FILES
        if self.meter.is_exceeded:
            raise self.meter.error()
        files: list[UploadedFile[bytes]] = [file for name in uploads for file in uploads.getlist(name)]
        if len(files) != 1 or "file" not in uploads:
            raise ValidationError({"file": "Send one file, in the field 'file' of a multipart form."})
        file = files[0]
        if not file.size:
            raise ValidationError({"file": "The file is empty."})
        owner, scope = owner_and_scope(request)
        claimed, filename = file.content_type or "", file.name or ""
        row = lifecycle.upload(file.read(), claimed=claimed, filename=filename, owner=owner, scope=scope)
        return Response(serializers.attachment_json(row), status=status.HTTP_201_CREATED)

    def initialize_request(self, request: HttpRequest, *args: object, **kwargs: object) -> Request:
        """Return the REST framework request, and limit the size of its uploaded files."""
        # Add the upload handler before REST framework checks the request. REST framework's CSRF check can read the
        # body. An upload handler that is added later would have no effect.
        self.meter = _Meter(request, max_bytes=config().max_attachment_bytes)
        request.upload_handlers.insert(0, self.meter)
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Refuse a body whose declared length is too large, without reading it."""
        try:
            announced_bytes = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            # Some servers pass on a Content-Length that is not a number.
            announced_bytes = 0
        if announced_bytes > self.meter.max_bytes + ENVELOPE_BYTES:
            raise self.meter.error()
        super().initial(request, *args, **kwargs)


class _Meter(FileUploadHandler):
    """An upload handler that stops reading as soon as the files have more than ``max_bytes`` in total."""

    def __init__(self, request: HttpRequest, *, max_bytes: int) -> None:
        super().__init__(request)
        self.max_bytes = max_bytes
        self.read_bytes = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether the files have more than ``max_bytes`` in total."""
        return self.read_bytes > self.max_bytes

    def error(self) -> TooLargeError:
        """Return the error for files that are too large."""
        return TooLargeError(f"The file has more than {self.max_bytes} bytes.")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        """Pass the chunk on to the next handler, or stop the upload if the files are too large."""
        self.read_bytes += len(raw_data)
        if self.is_exceeded:
            # With ``connection_reset=True``, Django does not read the rest of the body.
            raise StopUpload(connection_reset=True)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """Return None, so that the next upload handler completes the file."""


class AttachmentView(AgentsView):
    """A view that serves one file."""

    @Operation(
        operation_id="getAttachment",
        action="view",
        answers={200: Gives(shape=bytes, media_type="*/*")},
        raises=[AttachmentNotFoundError],
    )
    def get(self, request: Request, attachment_id: str) -> HttpResponseBase:
        """Download a file that you have uploaded and not yet sent, or a file of a thread that you may view."""
        row = public_attachment(request, attachment_id)
        etag = f'"{row.pk.hex}"'
        # A stored file never changes. If the browser already has the file, a 304 response confirms that the user may
        # still see it.
        response: HttpResponseBase | None = get_conditional_response(request._request, etag=etag)
        if response is None:
            response = _Download.of(row)
            if request.method == "HEAD" and response.file_to_stream is not None:
                # Close only the file. ``response.close()`` would send Django's signal ``request_finished``, which
                # closes database connections.
                response.file_to_stream.close()
                response = HttpResponse(headers={**response.headers, "Content-Length": str(row.size)})
        for name, value in {**_HEADERS, "ETag": etag}.items():
            response[name] = value
        return response


class _Download(FileResponse):
    """A response that sends a file in pieces."""

    block_size = BLOCK_BYTES

    @classmethod
    def of(cls, row: Attachment) -> _Download:
        """Return a response that sends the file of this row. Raises AttachmentNotFoundError if the storage does not
        have the file.
        """
        # Let browsers display only file types that cannot contain scripts. A script in an HTML page or in an SVG image
        # would run on the project's origin.
        media_type = row.media_type if is_shown(row.media_type) else "application/octet-stream"
        content_type = "text/plain; charset=utf-8" if media_type == "text/plain" else media_type
        try:
            stored = attachment_storage.storage().open(row.place)
        except FileNotFoundError as error:
            log_error("a file is not in the storage", action="download", attachment=row.pk)
            raise AttachmentNotFoundError(row.pk) from error
        is_bytes = media_type == "application/octet-stream"
        return cls(stored, content_type=content_type, filename=row.filename or "file", as_attachment=is_bytes)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces of the file. A piece is read only when the connection has room for it."""
        return at_readers_pace(self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        # Storages are synchronous. If this iterator were synchronous too, Django would read the whole file into memory
        # before sending it over ASGI.
        pieces = iter(self)
        read = sync_to_async(lambda: next(pieces, None), thread_sensitive=False)
        while (piece := await read()) is not None:
            yield piece
