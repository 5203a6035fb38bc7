"""Tasks for hostile messages, under an audit hook: it writes what the interpreter is made to do to a file that the test reads."""

import os
import sys
from pathlib import Path

AUDIT = os.open(os.environ["HOSTILE_AUDIT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WATCHED = {
    "import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class",
    "marshal.loads", "code.__new__", "ctypes.dlopen", "shutil.rmtree", "os.remove", "os.rename", "urllib.Request",
}  # fmt: skip


def watch(event, args):
    if event in WATCHED:
        said = f"{event} {args[0]!r:.200}"
    elif event == "socket.connect":
        said = f"{event} {args[1]!r}"
    elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        said = f"{event} {args[0]!r}"
    else:
        return
    os.write(AUDIT, f"{os.getpid()} {said}\n".encode("utf-8", "backslashreplace"))


import yaml  # noqa: E402, F401 - what a worker loads at its first message of such a kind is loaded before the hook
import zstandard  # noqa: E402, F401

from umbel import Celery  # noqa: E402

app = Celery("hostile_app", broker=os.environ["LEDGER_BROKER"], backend=os.environ["LEDGER_BACKEND"])
app.conf.update(
    accept_content=["json", "yaml", "msgpack"],
    task_message_max_size=8 * 1024 * 1024,
    result_max_size=8 * 1024 * 1024,
    broker_transport_options={"global_keyprefix": os.environ.get("LEDGER_PREFIX", "")},
    result_backend_transport_options={"global_keyprefix": os.environ.get("LEDGER_PREFIX", "")},
)


@app.task(bind=True)
def work(self, number=0, *rest, **more):
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(f"{self.request.id.encode('utf-8', 'backslashreplace')!r}\n")
    return number


@app.task
def large(size):
    return "x" * size


@app.task
def fails_largely(size):
    raise ValueError("x" * size)


@app.task
def unwritable():
    return object()


@app.task
def fails_unwritably():
    raise ValueError(object())


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@app.task
def fails_oddly():
    raise OddError


@app.task(bind=True)
def says_too_much(self, size):
    self.update_state(state="PROGRESS", meta="x" * size)


@app.task(bind=True)
def sends_too_much(self, size):
    work.delay("x" * size)


sys.addaudithook(watch)
