"""What a file is, is told from its bytes; what it is called, is only a name."""

import pytest

from durable_agents.exceptions import UnsupportedMediaTypeError
from durable_agents.media_types import clean_name, is_shown, media_type_of
from tests.attachments.samples import DOCX, HTML, PDF, PNG, SVG

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00"
ZIP = b"PK\x03\x04\x14\x00"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ODT = "application/vnd.oasis.opendocument.text"


@pytest.mark.parametrize(
    ("data", "claimed", "filename", "media_type"),
    [
        (PNG, "image/png", "a.png", "image/png"),
        (PNG, "image/jpeg", "a.jpg", "image/png"),
        (PNG, "text/html", "a.html", "image/png"),
        (PNG, "", "", "image/png"),
        (b"\xff\xd8\xff\xe0", "", "", "image/jpeg"),
        (b"GIF89a;<script>", "text/html", "", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "", "", "image/webp"),
        (b"RIFF\x10\n\x00\x00WAVEfmt ", "audio/x-wav", "", "audio/wav"),
        (PDF, "application/octet-stream", "a.exe", "application/pdf"),
        (b"ID3\x04", "audio/mp3", "", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "audio/mp3", "", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "application/octet-stream", "a.mp3", "audio/mpeg"),
        (b"OggS", "", "", "audio/ogg"),
        (MP4, "video/mp4", "", "video/mp4"),
        (MP4, "audio/x-m4a", "", "audio/mp4"),
        (b"\x00\x00\x00\x18ftypheic", "", "", "image/heic"),
        (b"\x1a\x45\xdf\xa3", "audio/webm;codecs=opus", "", "audio/webm"),
        (ZIP, DOCX, "a.docx", DOCX),
        (ZIP, "application/zip", "a.odt", ODT),
        (OLE, "", "a.XLS", "application/vnd.ms-excel"),
        (b"a,b\n1,2", "text/csv", "a.csv", "text/csv"),
        (b"a,b\n1,2", "application/vnd.ms-excel", "a.csv", "text/csv"),
        (b"a,b\n1,2", "TEXT/CSV; charset=utf-8", "", "text/csv"),
        (b'{"a": 1}', "application/json", "", "application/json"),
        (HTML, "text/html", "a.html", "text/html"),
        (SVG, "image/svg+xml", "a.svg", "image/svg+xml"),
        (b"# Notes", "application/octet-stream", "a.md", "text/markdown"),
        (b"Notes.", "", "Makefile", "text/plain"),
        (b"# Notes", "", "a.md", "text/markdown"),
        (b"let a: number", "video/mp2t", "a.ts", "text/plain"),
        (b"let a: number", "video/mp2t", "", "text/plain"),
        (b"module x", "audio/x-mod", "go.mod", "text/plain"),
        (b"<?php echo 1;", "application/x-httpd-php", "a.php", "text/plain"),
        (b"\\begin{document}", "application/x-tex", "a.tex", "text/plain"),
        (b"From: a@b\r\n\r\nHi", "message/rfc822", "a.eml", "text/plain"),
        (b'{"cells": []}', "application/x-ipynb+json", "a.ipynb", "application/x-ipynb+json"),
        (b'{"cells": []}', "", "a.ipynb", "text/plain"),
        (b"fn main() {}", "application/rls-services+xml", "a.rs", "application/rls-services+xml"),
        (b"FROM python", "", "Dockerfile", "text/plain"),
        (b"FROM python", "application/octet-stream", "Dockerfile", "text/plain"),
        (b"{\\rtf1 Hi}", "application/rtf", "a.rtf", "text/plain"),
        (b"/* XPM */", "image/x-xpixmap", "a.xpm", "text/plain"),
        (b"%!PS", "application/postscript", "a.ps", "text/plain"),
        (b"<svg>", "application/x-shockwave-flash", "a.swf", "text/plain"),
        (b"ID3 tags are notes.", "", "a.md", "text/markdown"),
        (b"OggS is how pages begin.", "text/plain", "", "text/plain"),
        (b"The ftyp box", "text/plain", "", "text/plain"),
        (b"fLaC begins a file.", "text/plain", "", "text/plain"),
        ("Gr\u00fc\u00dfe".encode("latin-1"), "text/plain", "", "text/plain"),
    ],
)
def test_a_file_is_what_its_bytes_are(data, claimed, filename, media_type):
    """Text is the kind of text that it is said to be."""
    assert media_type_of(data, claimed=claimed, filename=filename) == media_type


@pytest.mark.parametrize(
    ("data", "claimed", "filename"),
    [
        (HTML, "image/png", "a.png"),
        (SVG, "image/png", "a.png"),
        (HTML, "application/pdf", "a.pdf"),
        (b"\n" + PNG, "image/png", "a.png"),
        (ZIP, "application/zip", "a.zip"),
        (ZIP, "", "a.jar"),
        (ZIP, "text/plain", "a.txt"),
        (ZIP, "application/msword", "a.doc"),
        (b"MZ\x90\x00", "application/x-msdownload", "a.exe"),
        (b"MZ\x90\x00", "text/plain", "a.txt"),
        (b"\x7fELF\x02", "", ""),
        ("Notes".encode("utf-16"), "text/plain", "a.txt"),
        (b"Notes", "video/mp4", "a.mp4"),
        (b"Notes", "text/", "a"),
        (b"Notes", "te xt/plain", "a"),
        (b"Notes", "x" * 300 + "/y", "a"),
        (HTML, "image/bmp", "a.bmp"),
        (b"Notes", "audio/x-wav", ""),
        (b"Notes", DOCX, "a.docx"),
        (b"\x00\x01\x02", "video/mp2t", "a.ts"),
        (b"\x00\x01\x02", "", "a.rs"),
        (b"<?php \x00", "application/x-php", "a.php"),
    ],
)
def test_what_is_of_no_type_that_is_taken_is_refused(data, claimed, filename):
    """Whatever it is called."""
    with pytest.raises(UnsupportedMediaTypeError, match=r"Accepted are|is not a media type"):
        media_type_of(data, claimed=claimed, filename=filename)


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "text/javascript", "text/xml", "text/css", DOCX])
def test_what_could_run_is_not_shown(media_type):
    """It is downloaded."""
    assert not is_shown(media_type)
    assert is_shown("image/png")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("a\x00\r\nSet-Cookie: x\x7f.png", "aSet-Cookie: x.png"),
        ("a\ud800.png", "a.png"),
        ("gpj.\u202eexe.png", "gpj.exe.png"),
        (" Gr\u00fc\u00dfe \U0001f600.txt ", "Gr\u00fc\u00dfe \U0001f600.txt"),
        ("..", ""),
        ("", ""),
        ("dir/", ""),
        ("x" * 300 + ".png", "x" * 251 + ".png"),
        ("x" * 300, "x" * 255),
        ("a." + "y" * 300, "a." + "y" * 253),
    ],
)
def test_a_name_is_made_harmless(given, name):
    """Its ending is kept, as people and models go by it."""
    assert clean_name(given) == name
