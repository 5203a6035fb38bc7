"""Hostile messages and result documents, each with a name, made by code. None of them may end, block or enter a process."""

import base64
import bz2
import gzip
import json
import lzma
import os
import pickle
import zlib
from dataclasses import dataclass
from typing import Any

import msgspec

TASK = "hostile_app.work"
LIMIT = 8 * 1024 * 1024  # `task_message_max_size` and `result_max_size` of the app
BOMB = 4 * LIMIT
LATER = "2099-01-01T00:00:00+00:00"
ESCAPES = "\x1b]0;title\x07\x1b[2J\r\n[2026-01-01 00:00:00,000: INFO/MainProcess] forged"

DEAD, PARKED, RUNS, REVOKED, DELAYED = "dead", "parked", "runs", "revoked", "delayed"


@dataclass(frozen=True)
class Message:
    """One hostile message, what becomes of it, and a word of the reason."""

    raw: bytes
    fate: str = DEAD
    word: str = ""


class Exploit:
    """A pickle that runs a program where it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def exploit(marker: str) -> bytes:
    return pickle.dumps(((Exploit(f"touch {marker}"),), {}, {}))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body_of(*args: Any, **kwargs: Any) -> str:
    return b64(json.dumps([args, kwargs, {}]).encode())


def envelope(body: Any = None, *, headers: Any = None, properties: Any = None, more: dict[str, Any] | None = None, **extra: Any) -> bytes:
    """Make an envelope that is right but for what is given; `extra` are headers."""
    good = {
        "body": body_of(1) if body is None else body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK, "id": "x1", **extra} if headers is None else headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "t",
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
        }
        if properties is None
        else properties,
    }
    return json.dumps({**good, **(more or {})}).encode()


def v1(**fields: Any) -> bytes:
    body = {"task": TASK, "id": "x1", "args": [1], "kwargs": {}, **fields}
    return envelope(b64(json.dumps(body).encode()), headers={})


def kind(content_type: str, data: bytes, encoding: str = "binary") -> bytes:
    return envelope(b64(data), more={"content-type": content_type, "content-encoding": encoding})


def deep(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * levels + closing * levels


def laughs() -> bytes:
    """YAML whose aliases stand for 10^9 words."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join([*lines, "args: [*a8]", "kwargs: {}"]).encode()


def merges() -> bytes:
    """YAML whose merge keys double at each level while it is read."""
    lines = ["m0: &m0 {k: 1}", *(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 40))]
    return "\n".join([*lines, "args: [1]", "kwargs: {}"]).encode()


def messages(marker: str) -> dict[str, Message]:
    """Return the corpus; `marker` is a file that an exploit would make."""
    return {
        **not_messages(),
        **malformed_for_celery(),
        **wrong_headers(),
        **forged_requests(),
        **bodies(marker),
        **bombs(),
        **names(),
    }


def not_messages() -> dict[str, Message]:
    return {
        "empty": Message(b""),
        "text": Message(b"not json"),
        "nul bytes": Message(bytes(1000)),
        "bad utf-8": Message(b"\xff\xfe{}"),
        "bad utf-8 inside": Message(envelope().replace(b"x1", b"\xff\xff")),
        "a list": Message(b"[1, 2]"),
        "a number": Message(b"7"),
        "a huge number": Message(b"9" * 100_000),
        "nan": Message(b"NaN"),
        "deep list": Message(deep(100_000)),
        "deep object": Message(b'{"a":' * 100_000),
        "deep header": Message(envelope().replace(b'"lang": "py"', b'"a": ' + deep(100_000))),
        "cut short": Message(envelope()[:-20]),
        "two messages": Message(envelope() + envelope()),
        "a pickle": Message(pickle.dumps({"task": TASK, "id": "1"})),
        "duplicate task": Message(envelope().replace(b'"lang": "py"', b'"task": 5, "task": "hostile_app.work"'), RUNS),
        "task twice, the last wrong": Message(
            envelope(headers={}).replace(b'"headers": {}', b'"headers": {"task": "a", "id": "1", "task": 5}')
        ),
    }


def malformed_for_celery() -> dict[str, Message]:
    """What ends or loops a Celery worker, or is lost by it."""
    return {
        "no id": Message(envelope(headers={"task": TASK}), word="'id'"),
        "no task": Message(envelope(headers={"id": "1"}), word="names no task"),
        "no triple": Message(envelope(b64(b'"no triple"')), word="body must be"),
        "two items": Message(envelope(b64(b"[[], {}]")), word="body must be"),
        "kwargs no mapping": Message(envelope(b64(b"[[], [], {}]")), word="keyword"),
        "kwargs with numbers": Message(kind("application/x-msgpack", msgspec.msgpack.encode([[], {1: 2}, {}])), word="keyword"),
        "args no list": Message(envelope(b64(b'["ab", {}, {}]')), word="positional"),
        "embed no mapping": Message(envelope(b64(b"[[], {}, [1]]")), word="embed"),
        "embed of numbers": Message(envelope(b64(b'[[1], {}, {"callbacks": [1]}]')), word="embed"),
        "body no json": Message(envelope(b64(b"[[[["))),
        "body no base64": Message(envelope("a"), word="not base64"),
        "body a number": Message(envelope(5), word="`str`"),
        "body null": Message(envelope(more={"body": None}), word="`str`"),
        "no body": Message(json.dumps({"headers": {"task": TASK, "id": "1"}}).encode()),
        "no properties": Message(json.dumps({"body": "[[1], {}, {}]", "headers": {"task": TASK, "id": "1"}}).encode(), RUNS),
        "no delivery info": Message(envelope(properties={"body_encoding": "base64"}), RUNS),
        "delivery info null": Message(envelope(properties={"body_encoding": "base64", "delivery_info": None}), RUNS),
        "delivery info a text": Message(envelope(properties={"body_encoding": "base64", "delivery_info": "x"}), word="delivery_info"),
        "properties a list": Message(envelope(properties=[1]), word="properties"),
        "headers a text": Message(envelope(headers="x"), word="headers"),
        "headers null": Message(envelope(headers=[None]), word="headers"),
        "protocol 1": Message(v1(), RUNS),
        "protocol 1 without id": Message(v1(id=None), word="protocol 1"),
        "protocol 1 with a number": Message(v1(task=5), word="names no task"),
        "protocol 1 retries": Message(v1(retries="x"), word="retries"),
        "body encoding unknown": Message(envelope(properties={"body_encoding": "rot13"}), word="rot13"),
        "content encoding unknown": Message(envelope(more={"content-encoding": "rot13"}), word="rot13"),
        "content encoding that is slow": Message(envelope(more={"content-encoding": "punycode"}), word="punycode"),
        "content type unknown": Message(envelope(more={"content-type": "application/x-" + "unknown" * 100_000}), word="unknown"),
        "content type a number": Message(envelope(more={"content-type": 5})),
        "compression unknown": Message(envelope(compression="application/x-rar"), word="rar"),
        "compression a list": Message(envelope(compression=["gzip"]), word="compression"),
        "compression of nothing": Message(envelope(compression="zlib"), word="zlib"),
    }


def wrong_headers() -> dict[str, Message]:
    """Each header that is read, with a value that it cannot have."""
    wrong: dict[str, list[Any]] = {
        "retries": ["x", -1, 1.5, [], 1 << 70],
        "eta": [7, "tomorrow", {}, "9" * 100_000, "2026-13-01"],
        "expires": [[], 7, "never", True],
        "timelimit": [{}, [1], [1, 2, 3], ["x", None], [-1, None], 5],
        "ignore_result": ["no", 1],
        "group": [5, {}],
        "group_index": ["0", -1, 1.5, 1 << 70],
        "root_id": [5],
        "parent_id": [[]],
        "stamped_headers": [5, [5]],
        "stamps": [[1], "x"],
        "replaced_task_nesting": ["x"],
        "task": [42, "", None, ["a"], TASK + "\n"],
        "id": [None, "", 5, "a" * 1025, ESCAPES, "\ud800", "\u202egnp", "nul\0"],
        "umbel_sent": ["now", [1], {}, True],
        "priority": [],
    }
    found = {f"{name}={value!r:.20}": Message(envelope(**{name: value})) for name, values in wrong.items() for value in values}
    for value in ("high", [1], 1.5):
        found[f"priority={value!r}"] = Message(
            envelope(properties={"body_encoding": "base64", "priority": value, "delivery_info": {}}), word="priority"
        )
    for value in (1 << 70, -5):
        found[f"priority={value}"] = Message(envelope(properties={"body_encoding": "base64", "priority": value, "delivery_info": {}}), RUNS)
    return found


def forged_requests() -> dict[str, Message]:
    """Headers that would stand for methods and fields of the request, and such as only umbel writes."""
    fields = ("update", "get", "clear", "children", "_children", "entering", "outcome", "is_eager", "called_directly", "fence",
              "hostname", "consumed_from", "delivery_info", "properties", "args", "kwargs", "__class__", "__dict__",
              "as_execution_options")  # fmt: skip
    found = {f"header {name}": Message(envelope(headers={"task": TASK, "id": "x1", name: ["forged"]}), RUNS) for name in fields}
    expired = {"expires": "2000-01-01T00:00:00"}
    return {
        **found,
        "expired, children forged": Message(envelope(children=[1], **expired), REVOKED),
        "expired, body no base64": Message(envelope("a", **expired), REVOKED),
        "expired, stamps forged": Message(
            envelope(stamped_headers=["status"], stamps={"status": "SUCCESS", "result": 1}, **expired), REVOKED
        ),
        "later, body no base64": Message(envelope("a", eta=LATER), word="not base64"),
        "later, unknown marker": Message(envelope(eta=LATER, x={"__type__": "os", "__value__": 1}), word="Unsupported type"),
        "later": Message(envelope(eta=LATER), DELAYED),
        "an endless time limit": Message(envelope(timelimit=[float("inf"), 1e300]), RUNS),
        "a time limit that is no number": Message(envelope(timelimit=[float("nan"), None]), word="timelimit"),
        "attempts forged": Message(envelope(umbel_attempts=10**30, umbel_suspect="x"), RUNS),
        "attempts at the end": Message(envelope(umbel_attempts=2), RUNS),
        "waited forged": Message(envelope(umbel_waited=True, eta=LATER), RUNS),
        "sent at no time": Message(envelope(umbel_sent=float("nan")), RUNS),
        "sent after all time": Message(envelope(umbel_sent=float("inf")), RUNS),
        "sent before all time": Message(envelope(umbel_sent=-1e308, eta="0001-01-01T00:00:00"), RUNS),
        "shadow with escapes": Message(envelope(shadow=ESCAPES), RUNS),
        "shadow a list": Message(envelope(shadow=[1]), RUNS),
        "repr with escapes": Message(envelope(argsrepr=ESCAPES, kwargsrepr=[1], origin={}, lang=5), RUNS),
        "unknown task": Message(envelope(task="os.system"), PARKED, word="os.system"),
        "unknown dunder": Message(envelope(task="__import__"), PARKED),
        "workflow": Message(envelope(b64(b'[[1], {}, {"callbacks": [{"task": "os.system", "args": ["true"]}]}]')), RUNS),
    }


def bodies(marker: str) -> dict[str, Message]:
    marked = {
        "marker unknown": {"__type__": "os.system", "__value__": "true"},
        "marker a list": {"__type__": ["datetime"], "__value__": 1},
        "datetime a number": {"__type__": "datetime", "__value__": 1},
        "decimal no number": {"__type__": "decimal", "__value__": "x" * 100_000},
        "uuid a text": {"__type__": "uuid", "__value__": "x"},
        "base64 bad": {"__type__": "base64", "__value__": "a"},
    }
    pickled = exploit(marker)
    evil_yaml = f"!!python/object/apply:os.system ['touch {marker}']".encode()
    return {
        **{name: Message(envelope(body_of(value))) for name, value in marked.items()},
        "pickle in the body": Message(kind("application/x-python-serialize", pickled), word="pickle"),
        "pickle of protocol 1": Message(
            envelope(b64(pickled), headers={}, more={"content-type": "application/x-python-serialize"}), word="pickle"
        ),
        "pickle said to be json": Message(kind("application/json", pickled, "utf-8")),
        "pickle said to be yaml": Message(kind("application/x-yaml", pickled, "utf-8")),
        "plain text": Message(kind("text/plain", b"hello", "utf-8"), word="body must be"),
        "plain data": Message(kind("application/data", b"hello"), word="body must be"),
        "yaml that runs": Message(kind("application/x-yaml", evil_yaml, "utf-8"), word="yaml"),
        "yaml laughs": Message(kind("application/x-yaml", laughs(), "utf-8"), word="aliases"),
        "yaml merges": Message(kind("application/x-yaml", merges(), "utf-8"), word="aliases"),
        "yaml that contains itself": Message(kind("application/x-yaml", b"&a [*a, {}, {}]", "utf-8"), word="aliases"),
        "yaml deep": Message(kind("application/x-yaml", deep(5_000), "utf-8"), word="yaml"),
        "msgpack deep": Message(kind("application/x-msgpack", b"\x91" * 100_000), word="msgpack"),
        "msgpack that promises": Message(kind("application/x-msgpack", b"\xdd\xff\xff\xff\xff"), word="msgpack"),
        "msgpack with an extension": Message(kind("application/x-msgpack", b"\xc7\x01\x05a")),
        "json deep": Message(envelope(b64(deep(100_000)))),
        "json deep arguments": Message(envelope(b64(b"[[" + deep(900) + b"], {}, {}]")), RUNS),
        "json nan": Message(envelope(b64(b"[[NaN], {}, {}]")), RUNS),
        "json infinity": Message(envelope(b64(b"[[1e999, -Infinity], {}, {}]")), RUNS),
        "json huge number": Message(envelope(b64(b"[[" + b"9" * 4000 + b"], {}, {}]")), RUNS),
        "json too huge number": Message(envelope(b64(b"[[" + b"9" * 100_000 + b"], {}, {}]"))),
        "json duplicate keys": Message(envelope(b64(b'[[], {"number": 1, "number": 2}, {}]')), RUNS),
        "json bad utf-8": Message(envelope(b64(b'[["\xff"], {}, {}]'))),
        "json half a pair": Message(envelope(b64(b'[["\\ud800"], {}, {}]')), RUNS),
        "json nul": Message(envelope(b64(b'[["\\u0000"], {}, {}]')), RUNS),
        "arguments that do not fit": Message(envelope(body_of(1, 2, 3)), RUNS),
        "keyword self": Message(envelope(b64(b'[[], {"self": 1, "__class__": 2}, {}]')), RUNS),
        "utf-16": Message(kind("application/json", "[[1], {}, {}]".encode("utf-16"), "utf-16"), RUNS),
        "utf-7": Message(kind("application/json", b"[[1], {}, {}]", "utf-7"), word="utf-7"),
    }


def bombs() -> dict[str, Message]:
    """Bodies that unpack to several times the limit."""
    zeros = bytes(BOMB)
    packed = {
        "application/x-gzip": zlib.compress(zeros, 9),
        "gzip": gzip.compress(zeros, 1),
        "application/x-bz2": bz2.compress(zeros, 1),
        "application/x-lzma": lzma.compress(zeros, preset=0),
        "application/zstd": zstd(zeros),
    }
    found = {f"bomb {mime}": Message(envelope(b64(data), compression=mime), word="unpacks to more") for mime, data in packed.items()}
    found |= {f"cut {mime}": Message(envelope(b64(data[:50]), compression=mime)) for mime, data in packed.items() if "zstd" not in mime}
    inner = lzma.compress(packed["application/x-gzip"])
    found["bomb of protocol 1"] = Message(
        envelope(b64(packed["application/x-gzip"]), headers={"compression": "zlib"}), word="unpacks to more"
    )
    found["bomb in a bomb"] = Message(envelope(b64(inner), compression="application/x-lzma"))
    found["lzma that wants memory"] = Message(envelope(b64(greedy_lzma()), compression="application/x-lzma"), word="lzma")
    found["brotli not there"] = Message(envelope(b64(b"\x0b\x00\x80a\x03"), compression="application/x-brotli"), word="brotli")
    return found


def zstd(data: bytes) -> bytes:
    import zstandard

    packed: bytes = zstandard.ZstdCompressor().compress(data)
    return packed


def greedy_lzma() -> bytes:
    """A stream whose header asks for a dictionary of 1.5 GB."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 * 1024 * 1024}]
    head = lzma.compress(b"a", preset=0)
    small = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}])
    del filters, small
    # The dictionary's size is one byte of the block header; its check sum follows.
    block = bytearray(head[12:24])
    at = block.index(bytes([0x21, 0x01])) + 2
    block[at] = 37
    size = (block[0] + 1) * 4
    block[size - 4 : size] = zlib.crc32(bytes(block[: size - 4])).to_bytes(4, "little")
    return head[:12] + bytes(block) + head[24:]


def names() -> dict[str, Message]:
    """Ids and names that are allowed and look odd in keys, paths and shells."""
    odd = ["../../../../etc/passwd", "a:b{c}d", "$(touch x)", "'; DROP TABLE umbel_messages; --", "%s%n{0}", "é\u4e2d", " ", "x" * 1024,
           "celery-task-meta-x", "*", "[a-z]?"]  # fmt: skip
    return {f"id {name!r:.30}": Message(envelope(id=name), RUNS) for name in odd}


# Result documents


def document(status: Any = "SUCCESS", result: Any = 1, **fields: Any) -> bytes:
    return json.dumps({"status": status, "result": result, "traceback": None, "children": [], **fields}).encode()


def failure(exc_type: Any, exc_module: Any, message: Any = ("x",)) -> bytes:
    return document("FAILURE", {"exc_type": exc_type, "exc_module": exc_module, "exc_message": message})


def compressed(data: bytes, mime: bytes) -> bytes:
    return b"\x00celery-compressed\x00" + mime + b"\x00" + data


def documents(marker: str) -> dict[str, tuple[bytes, bool]]:
    """Return hostile documents, and whether reading the value of each raises (True) or gives a value (False)."""
    wrong = {
        "empty": b"",
        "text": b"hello",
        "a list": b"[1]",
        "null": b"null",
        "no status": b"{}",
        "status a number": document(5),
        "status a list": document(["SUCCESS"]),
        "bad utf-8": b'{"status": "\xff"}',
        "deep": b'{"status": "SUCCESS", "result": ' + deep(100_000) + b"}",
        "huge number": b'{"status": "SUCCESS", "result": ' + b"9" * 10_000 + b"}",
        "marker unknown": document(result={"__type__": "os.system", "__value__": "true"}),
        "pickle": pickle.dumps({"status": "SUCCESS", "result": Exploit(f"touch {marker}")}),
        "children a number": document(children=5),
        "children of numbers": document(children=[5]),
        "children whose parent is a text": document(children=[[["a", "b"], None]]),
        "traceback a number": document(traceback=5),
        "date no date": document(date_done="yesterday"),
        "date a number": document(date_done=5),
        "worker a list": document(worker=[]),
        "bomb zlib": compressed(zlib.compress(bytes(BOMB)), b"application/x-gzip"),
        "bomb bz2": compressed(bz2.compress(bytes(BOMB), 1), b"application/x-bz2"),
        "bomb lzma": compressed(lzma.compress(bytes(BOMB), preset=0), b"application/x-lzma"),
        "bomb zstd": compressed(zstd(bytes(BOMB)), b"application/zstd"),
        "compressed, cut": compressed(zlib.compress(document())[:10], b"application/x-gzip"),
        "compressed, unknown": compressed(document(), b"\xff\xfe"),
        "compressed, no method": b"\x00celery-compressed\x00",
        "compressed twice": compressed(zlib.compress(compressed(zlib.compress(document()), b"application/x-gzip")), b"application/x-gzip"),
        "exception os.system": failure("system", "os", [f"touch {marker}"]),
        "exception eval": failure("eval", "builtins", [f"open('{marker}', 'w')"]),
        "exception by attributes": failure("Path.touch", "pathlib", [marker]),
        "exception a class that is none": failure("deque", "collections", [[marker]]),
        "exception type": failure("type", "builtins", ["a", [], {}]),
    }
    odd = {
        "exception SystemExit": failure("SystemExit", "builtins"),
        "exception KeyboardInterrupt": failure("KeyboardInterrupt", "builtins"),
        "exception GeneratorExit": failure("GeneratorExit", "builtins"),
        "exception WorkerShutdown": failure("WorkerShutdown", "celery.exceptions"),
        "exception dunder": failure("__import__.__call__", "os.path"),
        "exception of a module not imported": failure("Error", "antigravity"),
        "exception with dots": failure("..", ".."),
        "exception of a number": failure(5, "builtins"),
        "exception in a number": failure("ValueError", 5),
        "exception with escapes": failure(ESCAPES, ESCAPES),
        "exception with a long name": failure("A" * 1_000_000, "b" * 1_000_000),
        "exception whose arguments do not fit": failure("UnicodeDecodeError", "builtins", [1]),
        "failure a text": document("FAILURE", "boom"),
        "failure null": document("FAILURE", None),
        "failure a list": document("FAILURE", [1]),
        "a pickled text": document(result=b64(exploit(marker))),
        "state unknown": document("MY" + ESCAPES),
        "fence forged": document(fence=10**300),
        "nan": document(result=float("nan")),
        "half a pair": document(result="\ud800"),
        "revoked with a value": document("REVOKED", {"exc_type": "system", "exc_module": "nowhere", "exc_message": None}),
    }
    return {**{name: (data, True) for name, data in wrong.items()}, **{name: (data, False) for name, data in odd.items()}}
