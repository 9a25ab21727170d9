"""A carrier's service, which a tool of the shop asks over the network."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Carrier(ThreadingHTTPServer):
    """A service on the network: every request fails as often as `failures` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CarrierRequest)
        self.failures = 0
        self.keys: list[str] = []

    @property
    def url(self) -> str:
        """The URL to give to a client."""
        return f"http://127.0.0.1:{self.server_port}"


class CarrierRequest(BaseHTTPRequestHandler):
    """One request to the carrier."""

    server: Carrier

    def do_GET(self) -> None:
        """Say where the parcel is, or fail."""
        self.server.keys.append(self.headers["Idempotency-Key"])
        fails = len(self.server.keys) <= self.server.failures
        self.send_response(503 if fails else 200)
        self.end_headers()
        self.wfile.write(b"" if fails else b"in Bremen")

    def log_message(self, *_: object) -> None:
        """Write no log."""
