"""A TCP proxy on 127.0.0.1 that makes a server seem further away: python _proxy.py HOST PORT MILLISECONDS. It prints its own port.

MILLISECONDS is what it adds to a round trip, half in each direction. What is read is queued with the time at which it is due, so that
later data never waits for earlier data to be on its way: the bandwidth stays. It ends when its standard input does.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from queue import SimpleQueue

CHUNK = 1 << 18


def take(source, line, delay):
    """Read what comes and note when it is due; nothing is due at the end."""
    data = b"?"
    while data:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        line.put((time.monotonic() + delay, data))


def give(line, target):
    """Write what is due."""
    while True:
        due, data = line.get()
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        try:
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)
        except OSError:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            return


def connect(client, address, delay):
    """Pass on what both ends say."""
    try:
        server = socket.create_connection(address, timeout=5)
    except OSError:
        client.close()
        return
    server.settimeout(None)
    writers = []
    for source, target in ((client, server), (server, client)):
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = SimpleQueue()
        threading.Thread(target=take, args=(source, line, delay), daemon=True).start()
        writers.append(threading.Thread(target=give, args=(line, target), daemon=True))
        writers[-1].start()
    for writer in writers:
        writer.join()
    for end in (client, server):
        end.close()


def accept(listener, address, delay):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=connect, args=(client, address, delay), daemon=True).start()


def main():
    address, delay = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3]) / 2000
    sys.setswitchinterval(0.0005)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=accept, args=(listener, address, delay), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    while os.read(0, 1024):
        pass


main()
