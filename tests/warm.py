"""Programs of the tests, in processes of their own that have imported umbel already: else that is most of what a short program takes.

Each is a copy of a process that has one thread and no connection, and has the environment, the folder and the path of modules that
`python -c` would have. That process ends with the one of the tests.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import IO

__all__ = ["program", "run"]

ROOT = str(Path(__file__).resolve().parent.parent)
SERVE = f"import sys; sys.path.insert(0, {ROOT!r}); from tests import warm; exec(warm.serve(int(sys.argv[1])))"
PRELOADED = ("umbel", "umbel.drivers.redis", "umbel.drivers.sqlite", "umbel.drivers.postgres", "umbel.drivers.amqp", "umbel.cli.main")
LONGEST = 200_000  # bytes of a call: the code and the environment


def run(code: str, *, cwd: Path, env: Mapping[str, str], input: str = "", timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """Runs *code* as `python -c` does, and gives what it printed.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    ours, theirs = socket.socketpair()
    file = tempfile.TemporaryFile
    with file() as given, file() as out, file() as err, ours, ours.makefile("r") as answers:
        given.write(input.encode())
        given.seek(0)
        with theirs:
            request = json.dumps({"code": code, "cwd": str(cwd), "env": dict(env)}).encode()
            socket.send_fds(_server(), [request], [given.fileno(), out.fileno(), err.fileno(), theirs.fileno()])
        pid = int(answers.readline())
        ours.settimeout(timeout)
        try:
            returncode = int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(code, timeout, _text(out), _text(err)) from None
        return subprocess.CompletedProcess(code, returncode, _text(out), _text(err))


def program(*words: str) -> str:
    """The code that does what `python -m umbel` does with these words, every warning an error but that of a resource left open."""
    return (
        "import runpy, sys, warnings\nwarnings.simplefilter('error')\nwarnings.simplefilter('ignore', ResourceWarning)\n"
        f"sys.argv[1:] = {list(words)!r}\nrunpy.run_module('umbel', run_name='__main__', alter_sys=True)"
    )


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _server() -> socket.socket:
    """Where calls are sent to; when this process ends, that one reads the end of the file, and ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        server = subprocess.Popen([sys.executable, "-c", SERVE, f"{number}"], pass_fds=[number], stdin=subprocess.DEVNULL)

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def serve(number: int) -> CodeType:
    """Copies this process for each call, and comes back in the copy with what it is to run."""
    for name in PRELOADED:
        importlib.import_module(name)
    sys.path.remove(ROOT)
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}  # by what becomes readable when the process ends
    with socket.socket(fileno=number) as calls, selectors.DefaultSelector() as ready:
        ready.register(calls, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fd in running:
                    ready.unregister(key.fd)
                    os.close(key.fd)
                    pid, answers = running.pop(key.fd)
                    with answers:
                        _answer(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    continue
                request, files, *_ = socket.recv_fds(calls, LONGEST, 4)
                if not request:
                    raise SystemExit
                answers = socket.socket(fileno=files.pop())
                pid = os.fork()
                if not pid:
                    answers.close()
                    return _become(json.loads(request), files)
                for file in files:
                    os.close(file)
                _answer(answers, pid)
                process = os.pidfd_open(pid)
                running[process] = pid, answers
                ready.register(process, selectors.EVENT_READ)


def _answer(answers: socket.socket, number: int) -> None:
    try:
        answers.sendall(b"%d\n" % number)
    except OSError:
        return  # who asked has gone


def _become(call: dict[str, str], files: list[int]) -> CodeType:
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["cwd"])
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-c"]
    return compile(call["code"], "<string>", "exec")
