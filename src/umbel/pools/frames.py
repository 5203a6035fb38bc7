"""Frames between a parent and its children: packets on a socket pair, large ones through an anonymous file.

`SOCK_SEQPACKET` keeps the borders of packets, so the parent, which keeps the child's end open too, can take back what
the child has not read, and several threads can read from one socket. A frame larger than a packet may be travels as the
descriptor of a file in memory.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from pathlib import Path

__all__ = ["Closed", "pair", "receive", "send"]

PACKET = 100_000  # bytes; the kernel refuses packets larger than the send buffer
BUFFER = 1 << 20
INT = 4  # bytes of a descriptor
DESCRIPTOR = socket.CMSG_SPACE(INT)
CUT = int(socket.MSG_CTRUNC)  # a plain number: the named one makes an object at each use


class Closed(Exception):  # noqa: N818 - the end of a conversation, not an error
    """The other side is gone."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Make two connected sockets that keep the borders of packets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return ours, theirs


def send(end: socket.socket, frame: bytes) -> None:
    """Send one frame.

    Raises:
        BlockingIOError: the socket does not block and its buffer is full; nothing was sent.
        Closed: nobody will read it.
    """
    try:
        if len(frame) <= PACKET:
            end.send(b"\0" + frame)
            return
        file = anonymous_file()
        try:
            with os.fdopen(os.dup(file), "wb") as writer:
                writer.write(frame)
            socket.send_fds(end, [b"\1"], [file])
        finally:
            os.close(file)
    except (BrokenPipeError, ConnectionResetError) as exc:
        raise Closed from exc


def receive(end: socket.socket, flags: int = 0) -> bytes:
    """Return one frame.

    Raises:
        BlockingIOError: there is none and the socket (or *flags*) says not to wait.
        Closed: the other side is gone and everything was read.
        OSError: a large frame came and is lost, as this process may open no more files.
    """
    try:
        data, ancillary, told, _ = end.recvmsg(PACKET + 1, DESCRIPTOR, flags)
    except ConnectionResetError as exc:
        raise Closed from exc
    if not data:
        raise Closed
    if told & CUT:  # the descriptor is gone, and the frame with it: who takes it for an empty one waits for ever
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if not ancillary:
        return data[1:]
    with os.fdopen(int.from_bytes(ancillary[0][2][:INT], sys.byteorder), "rb") as reader:
        reader.seek(0)
        return reader.read()


def anonymous_file() -> int:
    """Open a file that has no name and goes with its last descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("umbel-frame")
    handle, path = tempfile.mkstemp()
    Path(path).unlink()
    return handle
