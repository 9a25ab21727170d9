"""How the direct door speaks HTTP: addresses and keys of the environment, proxies, certificates, compressed answers."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import zlib

import pytest

from demo_project.model_server import EVENT_HEADERS
from durable_agents.llm import DirectDoor
from tests.llm.paths import Said
from tests.llm.wire import DONE, Wire, says, stop
from tests.servers.model import ModelUnderTest, Reply

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def door():
    """Return the direct door alone."""
    return DirectDoor()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def _new_session(run, door):
    """Let each test open connections of its own, with the certificates of its environment."""
    run(door.aclose())
    yield
    run(door.aclose())


HELLO = (*says("Hello ", "you."), stop(), DONE)


def test_address_and_key_come_from_the_environment(server, ask, monkeypatch):
    monkeypatch.setenv("GROQ_API_BASE", server.url)
    monkeypatch.setenv("GROQ_API_KEY", "key-of-groq")
    server.answer_with(Wire(pieces=HELLO))
    assert Said(ask(model="groq/x", settings={"api_base": None, "api_key": None})).text == "Hello you."


def test_a_call_without_a_key_fails_before_it_is_made(server, failure, monkeypatch):
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    error = failure(model="mistral/x", settings={"api_key": None})
    assert (error.kind.value, "MISTRAL_API_KEY" in str(error), server.requests) == ("auth", True, [])


def test_a_call_without_an_address_fails_before_it_is_made(server, failure, monkeypatch):
    monkeypatch.delenv("HOSTED_VLLM_API_BASE", raising=False)
    error = failure(model="hosted_vllm/x", settings={"api_base": None})
    assert (error.kind.value, "HOSTED_VLLM_API_BASE" in str(error)) == ("invalid_request", True)


def test_a_call_that_is_not_in_the_table_fails_with_the_reason(server, failure):
    error = failure(settings={"drop_params": True})
    assert (error.kind.value, "drop_params" in str(error), server.requests) == ("invalid_request", True, [])


def test_a_proxy_of_the_environment_is_used(server, ask, monkeypatch):
    """Nobody has to know the provider's address then."""
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    server.answer_with(Wire(pieces=HELLO))
    assert Said(ask(settings={"api_base": "http://models.example.test/v1"})).text == "Hello you."


def test_an_address_without_a_proxy_is_called_at_once(server, ask, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    server.answer_with(Wire(pieces=HELLO))
    assert Said(ask()).text == "Hello you."


def test_a_proxy_that_is_not_there_is_a_failed_attempt(server, failure, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    error = failure()
    assert (error.kind.value, error.retryable, server.requests) == ("network", True, [])


async def read_head(reader):
    """Read a request and return its head."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:"))
    await reader.readexactly(int(length))
    return head


class RawServer(ModelUnderTest):
    """Serves each connection with a coroutine of reader and writer, over TLS if it has a context."""

    def __init__(self, answer, *, context=None):
        super().__init__()
        self.answers, self.context = answer, context

    async def serve(self, host, port):
        """Listen, as the server of the tests does."""
        return await asyncio.start_server(self.handle, host, port, ssl=self.context)

    async def handle(self, reader, writer):
        """Answer, and close the connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await self.answers(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()


async def say_hello(reader, writer):
    """Answer as a server that closes the connection."""
    await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + "".join(HELLO).encode())
    await writer.drain()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read_as_it_comes(ask, encoding):
    async def answer(reader, writer):
        await read_head(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nConnection: close\r\n\r\n".encode())
        packed = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
        for piece in HELLO:
            writer.write(packed.compress(piece.encode()) + packed.flush(zlib.Z_SYNC_FLUSH))
            await writer.drain()
        writer.write(packed.flush())
        await writer.drain()

    with RawServer(answer) as other:
        assert Said(ask(settings={"api_base": other.url})).text == "Hello you."


def test_a_redirect_is_not_followed(server, failure):
    """It would send the key to another host."""

    async def answer(reader, writer):
        await read_head(reader)
        writer.write(f"HTTP/1.1 307 x\r\nLocation: {server.url}/x\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    with RawServer(answer) as other:
        error = failure(settings={"api_base": other.url})
    assert (error.retryable, server.requests) == (False, [])


@pytest.fixture
def certificate(tmp_path):
    """Return the path of a certificate for 127.0.0.1 that nobody has signed, with its key."""
    path = tmp_path / "own.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(path)]
    subprocess.run([*made, "-out", str(tmp_path / "cert.pem"), *subject], check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


@pytest.mark.parametrize("is_trusted", [True, False])
def test_certificates_of_the_environment_are_trusted_and_no_others(ask, failure, monkeypatch, certificate, is_trusted):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("cert.pem")))
    with RawServer(say_hello, context=context) as other:
        settings = {"api_base": other.url.replace("http:", "https:")}
        if is_trusted:
            assert Said(ask(settings=settings)).text == "Hello you."
        else:
            assert failure(settings=settings).kind.value == "network"


def test_connections_are_kept_for_the_next_call(run, ask):
    """An answer that is over leaves its connection open."""
    ports = []

    async def answer(reader, writer):
        body = "".join(HELLO).encode()
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await read_head(reader)
                ports.append(writer.get_extra_info("peername")[1])
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%b\r\n" % (len(body), body))
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.write(b"0\r\n\r\n")
                await writer.drain()

    with RawServer(answer) as other:
        for _ in range(3):
            ask(settings={"api_base": other.url})
        run(DirectDoor().aclose())
    assert (len(ports), len(set(ports))) == (3, 1)


def test_long_headers_of_gateways_are_read(server, ask, monkeypatch):
    monkeypatch.setitem(EVENT_HEADERS, "X-Policy", "p" * 20_000)
    server.answer_with(Reply(text="Hello.", delay_seconds=0))
    assert Said(ask()).text == "Hello."


def test_an_error_in_pretty_json_is_read(server, failure):
    """Over several lines, with status 200."""
    body = json.dumps({"error": {"message": "No.", "code": "insufficient_quota"}}, indent=2)
    server.answer_with(Wire(pieces=(body,)))
    assert failure().kind.value == "insufficient_credits"
