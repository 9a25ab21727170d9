"""Hides how the type and the name of a file are told from what somebody sent: by its bytes, whatever it is said to be.

What browsers show or models look at (images, PDF, sound, video, office documents) has to begin as its format does. Text
has no control characters, and is the kind of text that it is said to be: nothing but models reads it as that.
"""

from __future__ import annotations

import re
import unicodedata

from durable_agents.exceptions import UnsupportedMediaTypeError

MAX_NAME_CHARS = 255

ALLOWED = (
    "images (PNG, JPEG, GIF, WebP, HEIC), PDF, sound, video (MP4, WebM, MOV), text of any kind and office documents"
)

_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "audio/wav"),
    (re.compile(rb"%PDF-"), "application/pdf"),
    (re.compile(rb"OggS"), "audio/ogg"),
    (re.compile(rb"fLaC"), "audio/flac"),
    (re.compile(rb"ID3"), "audio/mpeg"),
    (re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", re.DOTALL), "image/heic"),
    (re.compile(rb"....ftypM4[AB] ", re.DOTALL), "audio/mp4"),
    (re.compile(rb"....ftypqt  ", re.DOTALL), "video/quicktime"),
)
"""Beginnings that only one type has."""

_CONTAINERS = (
    (re.compile(rb"....ftyp", re.DOTALL), "mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "webm"),
    (re.compile(rb"PK\x03\x04"), "zip"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "ole"),
    (re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), "mpeg frames"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "aac frames"),
)
"""Beginnings that several types share: what it is said to be decides among them."""

_OPEN_XML = "application/vnd.openxmlformats-officedocument."
_OPEN_DOCUMENT = "application/vnd.oasis.opendocument."
_WITHIN = {
    "audio/mp4": "mp4",
    "video/mp4": "mp4",
    "audio/webm": "webm",
    "video/webm": "webm",
    f"{_OPEN_XML}wordprocessingml.document": "zip",
    f"{_OPEN_XML}spreadsheetml.sheet": "zip",
    f"{_OPEN_XML}presentationml.presentation": "zip",
    f"{_OPEN_DOCUMENT}text": "zip",
    f"{_OPEN_DOCUMENT}spreadsheet": "zip",
    f"{_OPEN_DOCUMENT}presentation": "zip",
    "application/msword": "ole",
    "application/vnd.ms-excel": "ole",
    "application/vnd.ms-powerpoint": "ole",
    "audio/mpeg": "mpeg frames",
    "audio/aac": "aac frames",
}
_SAME = {"audio/mp3": "audio/mpeg", "audio/x-mp3": "audio/mpeg", "audio/x-m4a": "audio/mp4", "audio/m4a": "audio/mp4"}

_BY_EXTENSION = {
    "aac": "audio/aac",
    "csv": "text/csv",
    "css": "text/css",
    "doc": "application/msword",
    "docx": f"{_OPEN_XML}wordprocessingml.document",
    "htm": "text/html",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "log": "text/plain",
    "m4a": "audio/mp4",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "odp": f"{_OPEN_DOCUMENT}presentation",
    "ods": f"{_OPEN_DOCUMENT}spreadsheet",
    "odt": f"{_OPEN_DOCUMENT}text",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": f"{_OPEN_XML}presentationml.presentation",
    "py": "text/x-python",
    "sql": "application/sql",
    "svg": "image/svg+xml",
    "toml": "application/toml",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "weba": "audio/webm",
    "webm": "video/webm",
    "xls": "application/vnd.ms-excel",
    "xlsx": f"{_OPEN_XML}spreadsheetml.sheet",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}
_UNSAID = frozenset({"", "application/octet-stream", "binary/octet-stream"})

_NAME = r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")
_TEXT = re.compile(
    r"text/.*|image/svg\+xml|"
    r"application/(json|xml|yaml|x-yaml|x-ndjson|toml|javascript|x-javascript|x-sh|sql|(.*\+(json|xml|yaml)))"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SHOWN = re.compile(r"image/(png|jpeg|gif|webp)|application/pdf|audio/.*|text/plain")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text, and so where a name seems to end."""


def is_text(media_type: str) -> bool:
    """Whether files of this type are text, which every model can read."""
    return _TEXT.fullmatch(media_type) is not None


def is_shown(media_type: str) -> bool:
    """Whether a browser may show such a file by itself: it runs nothing that is in it."""
    return _SHOWN.fullmatch(media_type) is not None


def media_type_of(data: bytes, *, claimed: str = "", filename: str = "") -> str:
    """The media type of a file, in lower case and without parameters.

    ``claimed`` is what its sender says of it and may be anything. Raises UnsupportedMediaTypeError for what is of no
    type that is taken, or not of the one that it and its name are said to be of.
    """
    for beginning, media_type in _MAGIC:
        if beginning.match(data):
            return media_type
    said = claimed.partition(";")[0].strip().lower()
    container = next((name for beginning, name in _CONTAINERS if beginning.match(data)), None)
    for candidate in (_SAME.get(said, said), _BY_EXTENSION.get(filename.rpartition(".")[2].lower(), "")):
        if _fits(candidate, container, data):
            return candidate
    if said in _UNSAID and not container and not _CONTROL.search(data):
        return "text/plain"
    what = "A file without a type" if said in _UNSAID else f"A file of type {said[:100]!r}"
    raise UnsupportedMediaTypeError(f"{what} is not taken, or it is none by its content. Taken are: {ALLOWED}.")


def _fits(media_type: str, container: str | None, data: bytes) -> bool:
    if media_type in _WITHIN:
        return _WITHIN[media_type] == container
    is_named = _MEDIA_TYPE.fullmatch(media_type) is not None and is_text(media_type)
    return is_named and container is None and not _CONTROL.search(data)


def clean_name(given: str) -> str:
    """The last part of a file's name without anything that is no character to be read, at most 255 characters, its
    ending kept; empty where nothing is left."""
    last = given.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if unicodedata.category(char) not in {"Cc", "Cs"} and char not in _TURNING)
    name = kept.strip()
    if name.strip(".") == "":
        return ""
    stem, dot, ending = name.rpartition(".")
    if len(name) <= MAX_NAME_CHARS or not dot or len(ending) > 20:
        return name[:MAX_NAME_CHARS]
    return f"{stem[: MAX_NAME_CHARS - len(ending) - 1]}.{ending}"
