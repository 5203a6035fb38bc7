"""A TCP proxy that breaks on command: it cuts, freezes, delays, drops, swallows a reply, refuses."""

import contextlib
import re
import socket
import struct
import threading
import time
from typing import Self
from urllib.parse import urlsplit

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Proxy:
    """Listens on a port of its own and passes everything on to the server at *url*."""

    def __init__(self, url: str) -> None:
        server = urlsplit(url)
        assert server.hostname is not None
        self._target = (server.hostname, server.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        user = f"{server.username}@" if server.username else ""
        self.url = f"{server.scheme}://{user}127.0.0.1:{self.port}{server.path}"
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._requests, self._replies = threading.Event(), threading.Event()  # set: they flow
        self._requests.set()
        self._replies.set()
        self._refusing = False
        self._answer: bytes | None = None
        self._abandoned: set[tuple[socket.socket, socket.socket]] = set()
        self.asked = 0  # connections that clients made, those that were refused too
        self._delay = 0.0
        self._dropping = False
        self._keeping = False
        self.kept_open = 0  # connections that the server ended while that was kept from clients
        self._swallow: bytes | None = None
        self.swallowed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.thaw()
        self.cut()

    def cut(self) -> int:
        """Reset all connections; return how many that were."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)
        return len(pairs)

    def freeze(self, *, requests: bool = True, replies: bool = True) -> None:
        """Pass nothing on in the named directions; connections stay open, and new ones are accepted."""
        if requests:
            self._requests.clear()
        if replies:
            self._replies.clear()

    def thaw(self) -> None:
        """Let everything flow again, what was held back first."""
        self._requests.set()
        self._replies.set()

    def delay(self, seconds: float) -> None:
        """Pass everything on *seconds* late, in both directions."""
        self._delay = seconds

    def drop(self, on: bool) -> None:
        """Throw away what comes, in both directions, or no longer: connections stay open and are out of step for ever."""
        self._dropping = on

    def refuse(self, on: bool) -> None:
        """Reset each new connection at once, or no longer."""
        self._refusing = on

    def abandon(self) -> None:
        """Pass nothing on any more on the connections that are open now, as after the crash of a router; new ones work."""
        with self._lock:
            self._abandoned |= self._pairs

    def keep_open(self, on: bool) -> None:
        """Keep from clients that the server closes their connections, or no longer: what it said before is passed on."""
        self._keeping = on

    def answer_all(self, reply: bytes | None) -> None:
        """Answer each command with *reply*, in the server's place; None: no longer."""
        self._answer = reply

    def swallow(self, part: bytes) -> None:
        """Lose the reply of the next request in which *part* occurs, and reset its connection."""
        self.swallowed.clear()
        self._swallow = part

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.asked += 1
            if self._refusing:
                reset(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                reset(client)
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            losing = threading.Event()
            threading.Thread(target=self._pass_requests, args=(pair, losing), daemon=True).start()
            threading.Thread(target=self._pass_replies, args=(pair, losing), daemon=True).start()

    def _pass_requests(self, pair: tuple[socket.socket, socket.socket], losing: threading.Event) -> None:
        client, server = pair
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                self._requests.wait()
                time.sleep(self._delay)
                if self._dropping:
                    continue
                if pair in self._abandoned:
                    continue
                if self._answer is not None:
                    client.sendall(self._answer * commands_in(data))
                    continue
                if self._swallow is not None and self._swallow in data:
                    self._swallow = None
                    losing.set()
                server.sendall(data)
        self._end(pair)

    def _pass_replies(self, pair: tuple[socket.socket, socket.socket], losing: threading.Event) -> None:
        client, server = pair
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                if losing.is_set():
                    self.swallowed.set()
                    break
                self._replies.wait()
                time.sleep(self._delay)
                if self._dropping:
                    continue
                client.sendall(data)
            if self._keeping:
                self.kept_open += 1
                return
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
            self._abandoned.discard(pair)
        # What was sent to the server before the end still arrives there; the client sees a reset.
        client, server = pair
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        reset(client)


def commands_in(data: bytes) -> int:
    """How many commands begin in *data*; those of our client begin with their number of parts at the start of a line."""
    return len(re.findall(rb"(?:^|\r\n)\*\d+\r\n\$", data))


def reset(end: socket.socket) -> None:
    """Close *end* with a reset instead of a farewell."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    end.close()
