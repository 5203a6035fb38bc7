"""N workers as child processes, kept alive: what ends unasked is replaced, all are rolled on SIGHUP, all stop when we are told to."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

from umbel.supervisor import notify
from umbel.supervisor.os_signals import Signals, has_terminal, name_of, told_by_its_terminal
from umbel.supervisor.process import Command, WorkerProcess, ended_how, means_well
from umbel.supervisor.reload import Roll
from umbel.supervisor.slot import Slot

__all__ = ["Supervisor"]

logger = logging.getLogger("umbel.supervisor")

TRIES = 5  # ends of the first worker, which never got ready, after which we give up
EX_USAGE = 2  # a worker that ends with it would end again: the command line or the app is wrong
LAST = 5.0  # seconds after a cold stop, for which a worker needs one, until it is killed


class Supervisor:
    """Runs a worker for each of *nodes*. It loads no app, so that what it starts is always the code that is there now.

    Args:
        command: what each worker is started with.
        nodes: their names, all different.
        quiet: let not even the first worker print its banner.
        on_ready: called once, when all have become ready.
    """

    def __init__(
        self, command: Command, nodes: Sequence[str], *, quiet: bool = False, on_ready: Callable[[], object] | None = None
    ) -> None:
        self._command, self._quiet, self._on_ready = command, quiet, on_ready
        self._slots = [Slot(node, index, self._start) for index, node in enumerate(nodes, 1)]
        self._of: dict[int, tuple[Slot, WorkerProcess]] = {}  # by pid; invariant: all processes that we have not waited for
        self._roll: Roll | None = None
        self._roll_again = False
        self._proven = False  # has any worker ever been ready?
        self._stopping = 0  # how often we were told to
        self._kill_at: float | None = None
        self._exitcode = 0
        self._had_terminal = has_terminal()

    def run(self) -> int:
        """Run until told to stop; return the exit code."""
        with Signals() as signals:
            self._slots[0].due = time.monotonic()  # the first alone: if the app cannot be loaded, that is said once
            while self._of or not self._stopping:
                if not self._stopping:
                    self._start_what_is_due()
                signals.wait(self._patience(), [line for _, process in self._of.values() for line in process.lines])
                for number in signals.take():
                    self._obey(number)
                self._hear()
                self._reap()
                self._go_on()
        return self._exitcode

    # Starting

    def _start(self, slot: Slot) -> WorkerProcess:
        process = WorkerProcess(self._command, slot.node, slot.index, quiet=self._quiet)
        self._quiet = True  # one banner is enough
        logger.info("Starting %s as pid %d.", slot.node, process.pid)
        self._of[process.pid] = (slot, process)
        return process

    def _start_what_is_due(self) -> None:
        for slot in self._slots:
            try:
                slot.start_if_due()
            except OSError as exc:  # no more processes, or no memory
                logger.error("%s cannot be started (%s). The next attempt is in a second.", slot.node, exc.strerror)  # noqa: TRY400 - said
                slot.due = time.monotonic() + 1.0

    def _patience(self) -> float | None:
        """Return the seconds until something is due."""
        moments = [slot.due for slot in self._slots if slot.due is not None and not self._stopping]
        others = (self._kill_at, None if self._roll is None else self._roll.deadline)
        moments += [moment for moment in others if moment is not None]
        return min(moments) - time.monotonic() + 0.01 if moments else None

    # What happened

    def _hear(self) -> None:
        for slot, process in list(self._of.values()):
            if not process.lines or not process.hear():
                continue
            logger.info("%s (pid %d) is ready.", slot.node, process.pid)
            if not self._proven:
                self._proven = True
                for other in self._slots[1:]:
                    other.due = time.monotonic()
            self._tell_if_all_serve()

    def _tell_if_all_serve(self) -> None:
        if self._on_ready is not None and all(slot.serves for slot in self._slots):
            logger.info("All %d worker(s) are ready.", len(self._slots))
            notify.notify(f"READY=1\nSTATUS={len(self._slots)} workers")
            tell, self._on_ready = self._on_ready, None
            tell()

    def _reap(self) -> None:
        """Wait for all that have ended. As process 1 of a container we are given orphans, too: they are taken and forgotten."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            found = self._of.pop(pid, None)
            if found is not None:
                slot, process = found
                process.end(status)
                self._ended(slot, process)

    def _ended(self, slot: Slot, process: WorkerProcess) -> None:
        assert process.exitcode is not None
        if process is slot.leaving:
            slot.leaving = None
            level = logging.INFO if means_well(process) else logging.WARNING
            logger.log(level, "%s: pid %d %s.", slot.node, process.pid, ended_how(process.exitcode))
        elif self._stopping:
            if not means_well(process):
                logger.error("%s (pid %d) %s.", slot.node, process.pid, ended_how(process.exitcode))
                self._exitcode = 1
        elif process is slot.successor:
            slot.successor = None
            self._successor_ended(slot, process)
        elif process is slot.worker:
            self._worker_ended(slot, process)

    def _worker_ended(self, slot: Slot, process: WorkerProcess) -> None:
        if not self._proven and (process.exitcode == EX_USAGE or slot.quick_ends + 1 >= TRIES):
            logger.critical("No worker gets ready: %s %s. Nothing is started again.", slot.node, ended_how(process.exitcode or 0))
            self._exitcode = process.exitcode if process.exitcode and process.exitcode > 0 else 1
            self._stop(signal.SIGTERM)
            return
        slot.ended(process)
        if slot.successor is not None:
            slot.due = None  # that one takes its place
        elif self._roll is not None:
            self._roll.ended(slot, process)

    def _successor_ended(self, slot: Slot, process: WorkerProcess) -> None:
        if self._roll is not None:
            self._roll.ended(slot, process)
        if slot.worker is None:
            slot.due = time.monotonic()

    def _go_on(self) -> None:
        if self._stopping:
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._send(signal.SIGKILL)
            return
        if self._roll is not None:
            self._roll.step()
            if self._roll.over:
                self._roll = None
                notify.notify("READY=1")
        if self._roll is None and self._roll_again and self._proven:
            self._roll_again = False
            self._roll = Roll(self._slots)
            self._roll.step()

    # What we are told

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP and not self._stopping and not told_by_its_terminal(had_one=self._had_terminal):
            self._roll_again = True  # what was loaded in a roll that is on its way may be older than this signal
            notify.reloading()
            return
        if number == signal.SIGHUP and self._stopping:
            return
        if number == signal.SIGINT:
            self._exitcode = 1
        if not self._stopping:
            logger.info(
                "%s: all workers stop%s.", name_of(number), " at once" if number == signal.SIGQUIT else " when their tasks have ended"
            )
        self._stop(number)

    def _stop(self, number: int) -> None:
        """Tell all workers to stop: warmly at first, and at once the second time."""
        notify.notify("STOPPING=1")
        self._stopping += 1
        for slot in self._slots:
            slot.due = None
        if self._stopping > 1:
            self._kill_at = time.monotonic() + LAST
            self._send(signal.SIGQUIT)  # which a worker never takes for an echo
        elif number == signal.SIGQUIT:
            self._send(number)
        else:
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for slot, process in self._of.values():
            if number != signal.SIGTERM or process is not slot.leaving:  # which has had one: another would mean at once
                process.send(number)
