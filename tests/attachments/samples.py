"""Files of the kinds that people send, and some that are not what they say."""

import base64
from pathlib import Path
from typing import Any

from durable_agents.models import Attachment

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
HTML = b"<!doctype html><script>alert(document.cookie)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def data_url(data: bytes, media_type: str = "image/png") -> str:
    """Return the URL that has the file within it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def embedded(data: bytes = PNG, media_type: str = "image/png", filename: str = "dot.png") -> dict[str, Any]:
    """Return the part of a file as a browser sends it that does not upload."""
    return {"type": "file", "mediaType": media_type, "url": data_url(data, media_type), "filename": filename}


def named(uploaded: Any, **changes: Any) -> dict[str, Any]:
    """Return the part of a file that was uploaded, by the answer to its upload."""
    return {"type": "file", "mediaType": uploaded["mediaType"], "url": uploaded["url"], **changes}


def stored(root: Path) -> set[str]:
    """Return the names of all files below a directory."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def places() -> set[str]:
    """Return where the rows say that their files are."""
    return set(Attachment.objects.values_list("file", flat=True))
