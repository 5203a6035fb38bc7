"""Hostile messages given to real workers, and hostile results to a real reader, under an audit hook."""

import bz2
import json
import lzma
import random
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from tests.hostile import corpus
from tests.hostile.conftest import APPS
from tests.hostile.test_admission import fixtures, mutated
from tests.processes import wait_for

from umbel import Celery
from umbel.backend import Record
from umbel.broker import Item
from umbel.ids import uuid
from umbel.wire.message import Message, encode

PROBE = "from hostile_app import work; print(work.delay(7).get(timeout=60))"
MIB = 1024 * 1024

# What a worker needs once: each serializer and compression, a failure, an expired message, one that is refused and one unknown.
WARM_UP = """
from hostile_app import *
from umbel.broker import Item
from umbel.exceptions import BackendUnavailable
calls = [work.apply_async((n,), serializer=s, compression=c)
         for n, (s, c) in enumerate([("json", None), ("yaml", None), ("msgpack", None), ("json", "gzip"), ("json", "bzip2"),
                                     ("json", "lzma"), ("json", "zstd")] * 4)]
fails_oddly.delay().get(propagate=False, timeout=60)
for call in calls: call.get(timeout=60)
work.apply_async(expires="2000-01-01T00:00:00")
work.apply_async((5, 5), {"self": 5}).get(propagate=False, timeout=60) if not work.typing else None
app.broker.publish([Item(raw=b"warm", queue="celery", id="warm")])
app.send_task("hostile_app.unknown")
"""


def client(hostile):
    """Open the broker of the workers here."""
    prefix = hostile.env["LEDGER_PREFIX"]
    app = Celery("reader", broker=hostile.env["LEDGER_BROKER"], backend=hostile.env["LEDGER_BACKEND"], set_as_current=False)
    app.conf.update(
        broker_publish_timeout=60.0,
        broker_transport_options={"global_keyprefix": prefix},
        result_backend_transport_options={"global_keyprefix": prefix},
    )
    return app


def family(pid):
    """Return the pids of a process and of all below it."""
    found = [pid]
    for child in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(child.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += family(int(child.parent.name))
    return found


def peak(pid):
    """Return the most memory that a process ever had, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def suspicious(hostile, since, pids=()):
    """Return what these interpreters (all, if none is named) were seen to do that no message may make them do."""
    ledger, broker = hostile.env["LEDGER"], hostile.env["LEDGER_BROKER"]
    harmless = [
        rf"open '{re.escape(ledger)}'",  # the task's own ledger
        rf"open .*{re.escape(str(hostile.folder))}/umbel",  # the store and its bell
        r"open \d+$",  # a frame between parent and child: a file in memory
        r"compile b'task\.run\(\*call\.args",  # a traceback parses its own line of source, to underline in it
        r"compile b'raise NotRegistered\(name\)'",  # the same
        r"ctypes\.dlopen None$",  # the bell of an SQLite file
        r"import 'brotli'",  # a compression that is looked for and not there
        r"import 'compression(\.zstd)?'",
    ]
    if broker.startswith("redis"):
        host, port = re.search(r"//([^:/]+):(\d+)", broker).groups()
        harmless.append(rf"socket\.connect \('{host}', {port}\)")
    lines = [line.partition(" ") for line in hostile.audit()[since:].splitlines()]
    seen = {said for pid, _, said in lines if not pids or int(pid) in pids}
    return sorted(each for each in seen if not any(re.match(pattern, each) for pattern in harmless))


def settled(app, **expected):
    """Tell whether nothing of the queue waits or is claimed, and as many lie elsewhere as expected."""
    depth = app.broker.depth(["celery"])["celery"]
    return depth.ready == depth.claimed == 0 and all(getattr(depth, place) >= count for place, count in expected.items())


@pytest.mark.timeout(480)
def test_hostile_messages_end_no_worker_run_nothing_and_are_all_kept(hostile):
    attack(hostile, "prefork", mutations=200, largest=100 * MIB)


@pytest.mark.timeout(480)
def test_hostile_messages_do_not_end_a_worker_that_runs_tasks_itself(on_file):
    attack(on_file, "solo", mutations=20, largest=10 * MIB)


def attack(hostile, pool, *, mutations, largest):
    """Send all that is hostile to a worker, and look what became of it and of the worker."""
    marker = hostile.folder / "exploited"
    messages = corpus.messages(str(marker))
    with client(hostile) as app, hostile.worker("-P", pool, "-c", "2") as worker:
        hostile.script(WARM_UP)
        wait_for(lambda: settled(app, dead=1, parked=1), 60, hostile.logs)
        before, seen = family(worker.pid), len(hostile.audit())

        app.broker.publish([Item(raw=each.raw, queue="celery", id=uuid()) for each in messages.values()])
        count = {fate: sum(each.fate == fate for each in messages.values()) for fate in (corpus.DEAD, corpus.PARKED, corpus.DELAYED)}
        count["parked"] += 1  # the callback of a hostile message is sent, and is of no task that is known
        wait_for(lambda: settled(app, dead=count["dead"] + 1, parked=count["parked"] + 1, delayed=count["delayed"]), 90, hostile.logs)
        depth, letters = app.broker.depth(["celery"])["celery"], app.broker.dead("celery", limit=1000)
        reasons = "\n".join(letter.reason for letter in letters)
        assert (depth.dead, depth.parked, depth.delayed) == (count["dead"] + 1, count["parked"] + 1, count["delayed"]), reasons
        assert all(letter.reason and letter.reason.isprintable() for letter in letters)

        rng, seeds = random.Random(7), fixtures()
        app.broker.publish([Item(raw=mutated(rng, rng.choice(seeds)), queue="celery", id=uuid()) for _ in range(mutations)])
        app.broker.publish([Item(raw=corpus.envelope("A" * largest), queue="celery", id=uuid())])
        wait_for(lambda: settled(app, dead=count["dead"] + 2), 90, hostile.logs)

        assert hostile.script(PROBE).strip() == "7"
        assert family(worker.pid) == before, worker.tail()
        assert suspicious(hostile, seen, before) == []
        assert not marker.exists()
        peaks = [peak(pid) for pid in before]
        assert max(peaks) < 10 * largest + 100 * MIB, f"bytes at most, of the worker and its children: {peaks}"
        assert not peaks[1:] or max(peaks[1:]) < 150 * MIB, "children see no message that is too large"
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    check_log(worker.log())


def check_log(log):
    """A message writes no line of its own into a log, tells a terminal nothing, and its claims are kept short."""
    assert "INTERNAL ERROR" not in log
    assert "exited with" not in log
    assert not re.search(r"^\[2026-01-01", log, re.MULTILINE), "a forged line"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", log)
    assert max(map(len, log.splitlines())) < 3000


READER = """
import json, os, re, sys
from hostile_app import app
from umbel.exceptions import KombuError, SecurityError
ids = json.load(sys.stdin)
app.AsyncResult("warm").get(timeout=1)
for name in ("warm-zlib", "warm-bz2", "warm-lzma", "warm-zstd", "warm-failure"):
    app.AsyncResult(name).get(propagate=False)
try: app.AsyncResult("warm-bad").state
except KombuError: pass
os.write(2, b"")
said = {}
start = os.path.getsize(os.environ["HOSTILE_AUDIT"])
def tell(call):
    try: value = call()
    except (KombuError, SecurityError) as exc: return f"refused: {type(exc).__name__}"
    except Exception as exc: return f"raised: {type(exc).__name__}: {exc!r:.200}"
    return "exception" if isinstance(value, Exception) else "base exception" if isinstance(value, BaseException) else "value"
for id in ids:
    said[id] = [tell(lambda: app.AsyncResult(id).state), tell(lambda: app.AsyncResult(id).info),
                tell(lambda: app.AsyncResult(id).get(propagate=False, timeout=0.01)), tell(lambda: app.AsyncResult(id).children)]
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps([start, peak, said]))
"""


def test_hostile_results_are_refused_or_values_and_run_nothing(hostile, tmp_path):
    marker = tmp_path / "exploited"
    documents = corpus.documents(str(marker))
    good = corpus.document()
    warm = {"warm": good, "warm-failure": corpus.failure("NotThereError", "nowhere"), "warm-bad": b"no",
            **{f"warm-{name}": corpus.compressed(pack(good), mime) for name, mime, pack in packers()}}  # fmt: skip
    with client(hostile) as app:
        everything = {**warm, **{name: data for name, (data, _) in documents.items()}}
        app.backend.store([Record(id=name, state="SUCCESS", meta=data, fence=0, expires=60) for name, data in everything.items()])
    done = subprocess.run(
        [sys.executable, "-c", READER],
        check=False,
        cwd=APPS,
        env=hostile.env,
        input=json.dumps(list(documents)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    start, memory, said = json.loads(done.stdout)
    for name, (_, refused) in documents.items():
        state, info, got, _ = said[name]
        assert not any(each.startswith(("base", "raised")) and "TimeoutError" not in each for each in said[name]), (name, said[name])
        assert info.startswith("refused") == refused, (name, said[name])
        if state.startswith("refused"):
            assert got.startswith("refused"), (name, said[name])
    assert suspicious(hostile, start) == []
    assert not marker.exists()
    assert memory / 1024 < 300, "MiB at most"


def packers():
    return (("zlib", b"application/x-gzip", zlib.compress), ("bz2", b"application/x-bz2", bz2.compress),
            ("lzma", b"application/x-lzma", lzma.compress), ("zstd", b"application/zstd", corpus.zstd))  # fmt: skip


OUTCOMES = """
from hostile_app import *
def tell(call):
    try: return type(call.get(timeout=60)).__name__
    except OddError: return "OddError"
    except Exception as exc: return f"{type(exc).__name__}: {str(exc)[:2000]}"
size = 9 * 1024 * 1024
calls = [large.delay(200 * 1024 * 1024), large.delay(size), fails_largely.delay(size), unwritable.delay(), fails_unwritably.delay(),
         fails_oddly.delay(), says_too_much.delay(size), sends_too_much.delay(size), large.delay(5)]
print("\\n".join(tell(call) for call in calls))
"""


@pytest.mark.timeout(480)
def test_an_outcome_that_is_too_large_or_cannot_be_written_is_a_failure_that_says_so(on_file):
    hostile = on_file
    with hostile.worker("-c", "1") as worker:
        said = hostile.script(OUTCOMES).splitlines()
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert said[0].startswith("EncodeError: What hostile_app.large returned cannot be stored. The result document of ")
    assert re.search(r" has 2097\d+ bytes; result_max_size allows 8388608\. Put large data", said[0])
    assert "result_max_size" in said[1]
    assert "ValueError('xxx" in said[2]
    assert "result_max_size" in said[2]
    assert said[3].startswith("EncodeError")
    assert "object" in said[3]
    assert said[4].startswith("ValueError: <object object")
    assert "OddError" in said[5]
    assert "result_max_size" in said[6]
    assert "task_message_max_size" in said[7]
    assert said[8] == "str"


def test_a_result_without_a_limit_may_be_large(on_file):
    """The frames between parent and child, and the store, carry what the settings let through."""
    (on_file.folder / "unlimited_app.py").write_text("from hostile_app import *\napp.conf.result_max_size = None\n")
    on_file.env["PYTHONPATH"] = f"{on_file.folder}:{on_file.env['PYTHONPATH']}"
    with on_file.of_app("unlimited_app", "-c", "1"):
        assert on_file.script("from unlimited_app import *; print(len(large.delay(30_000_000).get(timeout=60)))").strip() == "30000000"


def test_odd_ids_are_safe_on_the_command_line_and_in_every_list(on_file):
    hostile = on_file
    messages = {name: each for name, each in corpus.messages("/nonexistent").items() if "id " in name or each.fate == corpus.PARKED}
    texts = Message(headers={"task": "a\x1b[2Jb", "id": "1"}, body=b"[[], {}, {}]")
    with client(hostile) as app, hostile.worker("-P", "solo") as worker:
        app.broker.publish([Item(raw=each.raw, queue="celery", id=uuid()) for each in messages.values()])
        app.broker.publish([Item(raw=encode(texts), queue="celery", id=uuid())])
        wait_for(lambda: settled(app, dead=1, parked=2), 60, hostile.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    check_log(worker.log())
    for words in (("dead", "list"), ("dead", "list", "--json"), ("parked", "list")):
        with hostile.running(*words) as command:
            assert command.exit_code() == 0, command.tail()
        check_log(command.log())
