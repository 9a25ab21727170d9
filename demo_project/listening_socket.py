"""Open the demo's listening socket, format its address for people, and check whether the server answers.

`manage.py demo` keeps the socket open and passes it to the web server. Therefore no other program can take the port
while the web server starts or restarts.
"""

import contextlib
import errno
import http.client
import ipaddress
import socket

PORTS_TO_TRY = 100
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `port` of `host`. If the port is taken, use the next free port; 0 means any free
    port.

    Raises `OSError` if `host` is not an address of this machine, or no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = min(port + PORTS_TO_TRY, 65535)
    for candidate in range(port, last):
        try:
            return socket.create_server((host, candidate), family=family, backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, last), family=family, backlog=128)


def port_of(listener: socket.socket) -> int:
    """Return the port that `listener` listens on."""
    return int(listener.getsockname()[1])


def free_port() -> int:
    """Return a loopback port that is currently free."""
    with listen(LOOPBACK[socket.AF_INET], 0) as probe:
        return port_of(probe)


def reachable_host(listener: socket.socket) -> str:
    """Return an address at which this machine can reach `listener`, even if it listens on 0.0.0.0."""
    host = str(listener.getsockname()[0])
    return LOOPBACK[listener.family] if ipaddress.ip_address(host).is_unspecified else host


def name_in_urls(listener: socket.socket) -> str:
    """Return the host of `listener` as it appears in URLs and `ALLOWED_HOSTS`, with brackets around an IPv6 address."""
    host = reachable_host(listener)
    return f"[{host}]" if ":" in host else host


def site_url(listener: socket.socket) -> str:
    """Return the URL of the site behind `listener`."""
    return f"http://{name_in_urls(listener)}:{port_of(listener)}/"


def is_answering(host: str, port: int, path: str) -> bool:
    """Return whether an HTTP server answers within five seconds and without an error status."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
