"""Compressing a message body, under the names and MIME types that kombu uses."""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from umbel.exceptions import DecodeError, EncodeError
from umbel.wire.saferepr import saferepr
from umbel.wire.size import ADVICE, DEFAULT_LIMIT

__all__ = ["MARK", "compress", "decompress", "unpacked_document"]

MARK = b"\x00celery-compressed\x00"  # how a compressed document of a result begins; then its MIME type and a zero

LZMA_MEMORY = 256 * 1024 * 1024  # bytes; the highest preset needs 65 MiB
STEP = 1 << 20  # bytes

# kombu labels a bare zlib stream "application/x-gzip", and so do we.
_MIME = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
    "brotli": "application/x-brotli",
}


def compress(body: bytes, name: str) -> tuple[str, bytes]:
    """Compress a body by the method of that name and say its MIME type.

    Raises:
        EncodeError: there is no such method, or its package is not installed.
    """
    mime = _MIME.get(name, name)
    pack = _COMPRESSORS.get(mime)
    if pack is None:
        raise EncodeError(f"No compression called {name!r}. Known: {', '.join(sorted(_MIME))}.")
    try:
        return mime, pack(body)
    except ImportError as exc:
        raise EncodeError(f"Compression {name!r} needs a package that is not installed: {exc}. {_advice(mime)}") from exc


def decompress(body: bytes, mime: str, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """Undo `compress`, never unpacking more than `limit` bytes.

    Raises:
        DecodeError: the method is unknown or not installed, or the body is damaged or unpacks to more than the limit.
    """
    unpack = _DECOMPRESSORS.get(_MIME.get(mime, mime))
    if unpack is None:
        raise DecodeError(f"The body is compressed as {saferepr(mime, 60)}, which is not known here. Known: {', '.join(sorted(_MIME))}.")
    try:
        unpacked = unpack(body, limit + 1)
    except ImportError as exc:
        raise DecodeError(f"The body is compressed as {mime!r}, whose package is not installed: {exc}. {_advice(mime)}") from exc
    except Exception as exc:  # each library has errors of its own
        raise DecodeError(f"The body is not the {mime!r} that its header says: {exc}") from exc
    if len(unpacked) > limit:
        raise DecodeError(
            f"A {mime!r} body of {len(body)} bytes unpacks to more than {limit} bytes. "
            f"{ADVICE}, or raise the setting task_message_max_size (of results: result_max_size).",
        )
    return unpacked


def unpacked_document(data: bytes, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """Return the document of a result as it was before it was compressed, if it was.

    Raises:
        DecodeError: it is damaged, or unpacks to more than the limit.
    """
    if not data.startswith(MARK):
        return data
    mime, _, packed = data[len(MARK) :].partition(b"\x00")
    return decompress(packed, mime.decode("latin-1"), limit=limit)


def _advice(mime: str) -> str:
    package = "brotli>=1.2" if "brotli" in mime else "umbel[zstd]"
    return f"Install it: pip install '{package}'."


def _all_of(unpacker: Any, body: bytes, most: int) -> bytes:
    """Feed a decompressor of the standard library's shape."""
    unpacked: bytes = unpacker.decompress(body, most)
    if len(unpacked) < most and not unpacker.eof:
        raise EOFError("it ends too early")
    return unpacked


def _unzlib(body: bytes, most: int) -> bytes:
    # 32 more than the window size: a gzip header, as the MIME type promises, is understood too.
    return _all_of(zlib.decompressobj(32 + zlib.MAX_WBITS), body, most)


def _unbz2(body: bytes, most: int) -> bytes:
    return _all_of(bz2.BZ2Decompressor(), body, most)


def _unlzma(body: bytes, most: int) -> bytes:
    return _all_of(lzma.LZMADecompressor(memlimit=LZMA_MEMORY), body, most)


def _zstd() -> tuple[Any, bool]:
    """Find a zstd library; true if it is the standard library's."""
    try:
        return importlib.import_module("compression.zstd"), True
    except ImportError:
        return importlib.import_module("zstandard"), False


def _pack_zstd(body: bytes) -> bytes:
    library, standard = _zstd()
    packed: bytes = library.compress(body) if standard else library.ZstdCompressor().compress(body)
    return packed


def _unzstd(body: bytes, most: int) -> bytes:
    library, standard = _zstd()
    if standard:
        return _all_of(library.ZstdDecompressor(), body, most)
    parts = []
    with library.ZstdDecompressor().stream_reader(body) as reader:
        while most > 0 and (part := reader.read(min(most, STEP))):
            parts.append(part)
            most -= len(part)
    return b"".join(parts)


def _pack_brotli(body: bytes) -> bytes:
    packed: bytes = importlib.import_module("brotli").compress(body)
    return packed


def _unbrotli(body: bytes, most: int) -> bytes:
    unpacker = importlib.import_module("brotli").Decompressor()
    parts, room = [unpacker.process(body, output_buffer_limit=most)], most
    while (room := room - len(parts[-1])) > 0 and not unpacker.is_finished():
        parts.append(unpacker.process(b"", output_buffer_limit=room))
        if not parts[-1]:
            raise EOFError("it ends too early")
    return b"".join(parts)


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
    "application/zstd": _pack_zstd,
    "application/x-brotli": _pack_brotli,
}
_DECOMPRESSORS: dict[str, Callable[[bytes, int], bytes]] = {
    "application/x-gzip": _unzlib,
    "application/x-bz2": _unbz2,
    "application/x-lzma": _unlzma,
    "application/zstd": _unzstd,
    "application/x-brotli": _unbrotli,
}
