"""Determine the media type and a safe name of an uploaded file, without trusting the client.

- Images, PDF, audio, video and office files must begin with the bytes that their format requires.
- Text files must have no control characters. If the client declares a text type, the file keeps this type. This is
  safe, because only models get the declared type.
- Other text files get the type of their extension, or ``text/plain``. For many source files, browsers declare no type
  or a wrong type, for example ``video/mp2t`` for TypeScript.
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
    (re.compile(rb"OggS(?:\x00|\Z)"), "audio/ogg"),
    (re.compile(rb"fLaC(?:[\x00\x80]|\Z)"), "audio/flac"),
    (re.compile(rb"ID3[\x02-\x04]"), "audio/mpeg"),
    (re.compile(rb"\x00\x00..ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", re.DOTALL), "image/heic"),
    (re.compile(rb"\x00\x00..ftypM4[AB] ", re.DOTALL), "audio/mp4"),
    (re.compile(rb"\x00\x00..ftypqt  ", re.DOTALL), "video/quicktime"),
)
"""First bytes that identify a type. They must not match ordinary text: ``ID3`` alone is not enough for an MP3 file,
because a text about ID3 tags might begin with these letters.
"""

_CONTAINERS = (
    (re.compile(rb"\x00\x00..ftyp", re.DOTALL), "mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "webm"),
    (re.compile(rb"PK\x03\x04"), "zip"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "ole"),
    (re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), "mpeg frames"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "aac frames"),
)
"""First bytes that several types share. For a file that begins with such bytes, the declared type or the file name
decides.
"""

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
_SAME = {
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "video/x-m4v": "video/mp4",
}

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
    "m4v": "video/mp4",
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
_NO_TEXT = re.compile(r"(image|audio|video|font)/.*|application/pdf")
"""Types of files that are viewed or played. A text file that is declared as one of these types is refused."""
_OFTEN_TEXT = frozenset(
    {
        *("video/mp2t", "audio/x-mod", "audio/mpegurl", "audio/x-mpegurl", "image/x-xpixmap", "image/x-xbitmap"),
        *("image/x-portable-anymap", "image/x-portable-pixmap", "image/vnd.dxf", "image/x-eps"),
    }
)
"""Media types that operating systems declare for files that are text: TypeScript sources, ``go.mod``, playlists, and
images in the formats XPM, XBM, PNM, DXF and EPS.
"""
_SOURCES = frozenset({"ts", "tsx", "mts", "cts", "mod", "m3u", "m3u8", "xpm", "xbm", "dxf", "eps"})
"""Extensions of text files that some operating systems declare as sound, video or image."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SHOWN = re.compile(r"image/(png|jpeg|gif|webp)|application/pdf|audio/.*|text/plain")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text. In a file name, they could disguise the extension."""


def is_text(media_type: str) -> bool:
    """Return whether files of this type are text that every model can read."""
    return _TEXT.fullmatch(media_type) is not None


def is_shown(media_type: str) -> bool:
    """Return whether a browser is allowed to display files of this type. Types that can run code are not displayed."""
    return _SHOWN.fullmatch(media_type) is not None


def media_type_of(data: bytes, *, claimed: str = "", filename: str = "") -> str:
    """Return the media type of a file, in lower case and without parameters.

    ``claimed`` is the type that the sender declares. It can be wrong or empty, or have parameters. Raises
    UnsupportedMediaTypeError if the type is not accepted, or if the content contradicts the declared type and the file
    name.
    """
    said = claimed.partition(";")[0].strip().lower()
    if said and not _MEDIA_TYPE.fullmatch(said):
        raise UnsupportedMediaTypeError(f"{said[:100]!r} is not a media type. Leave it empty if it is not known.")
    for beginning, media_type in _MAGIC:
        if beginning.match(data):
            return media_type
    container = next((name for beginning, name in _CONTAINERS if beginning.match(data)), None)
    ending = filename.rpartition(".")[2].lower()
    for candidate in (_SAME.get(said, said), _BY_EXTENSION.get(ending, "")):
        if candidate in _WITHIN:
            fits = _WITHIN[candidate] == container
        else:
            fits = is_text(candidate) and container is None and not _CONTROL.search(data)
        if fits:
            return candidate
    # Refuse text that is declared as an image, sound, video or document. The types in _OFTEN_TEXT are an exception.
    may_be_text = said in _UNSAID | _OFTEN_TEXT or not (_NO_TEXT.fullmatch(said) or said in _WITHIN)
    if (ending in _SOURCES or may_be_text) and not container and not _CONTROL.search(data):
        return "text/plain"
    what = "A file without a type" if said in _UNSAID else f"A file of type {said[:100]!r}"
    raise UnsupportedMediaTypeError(f"{what} is not accepted, or has another content. Accepted are: {ALLOWED}.")


def clean_name(given: str) -> str:
    """Return a safe file name: without folders and unprintable characters, and with at most 255 characters. The
    extension is kept. The result may be empty.
    """
    last = given.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if unicodedata.category(char) not in {"Cc", "Cs"} and char not in _TURNING)
    name = kept.strip()
    if name.strip(".") == "":
        return ""
    stem, dot, ending = name.rpartition(".")
    if len(name) <= MAX_NAME_CHARS or not dot or len(ending) > 20:
        return name[:MAX_NAME_CHARS]
    return f"{stem[: MAX_NAME_CHARS - len(ending) - 1]}.{ending}"
