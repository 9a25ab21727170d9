"""The network between a browser and a server: a proxy that can be frozen and broken."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Cable:
    """A context manager: inside it, what connects to `url` reaches the server at a port of this host."""

    def __init__(self, port: int) -> None:
        self.passed = 0
        """How many bytes have arrived so far, in both directions together."""
        self._port = port
        self._arrival = threading.Lock()
        self._is_frozen = self._is_broken = False
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.mend()
        self.break_off()

    def freeze(self) -> None:
        """Let nothing arrive, in either direction. Connections stay open."""
        self._arrival.acquire()
        self._is_frozen = True

    def break_off(self) -> None:
        """Break all connections, and every new one at once."""
        self._is_broken = True
        with self._arrival:
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let what was held arrive, and new connections live."""
        if self._is_frozen:
            self._arrival.release()
        self._is_frozen = self._is_broken = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._is_broken:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                with self._arrival:
                    other.sendall(data)
                    self.passed += len(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
