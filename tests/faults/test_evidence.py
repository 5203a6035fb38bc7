"""What a child leaves behind when it dies is where people look: the log, the result and the dead letter."""

import json
import signal

import pytest
from tests.faults.test_children import stop
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)


def letters(faults) -> list[str]:
    return json.loads(faults.send("import json; print(json.dumps([letter.reason for letter in app.broker.dead('celery')]))"))


def test_a_dead_letter_says_which_line_broke_the_process_or_that_it_was_killed_from_outside(on_file):
    on_file.send("reads_address_zero.delay(1); dies.delay(2)")
    with on_file.worker("-P", "prefork", "-c", "1") as worker:
        wait_for(lambda: "dead=2" in on_file.depth(), 25, on_file.logs)
        stop(worker)
    killed, broken = sorted(letters(on_file), key=lambda reason: "SIGSEGV" in reason)
    assert "signal 11 (SIGSEGV), peak memory " in broken
    assert 'faults_app.py", line ' in broken, broken
    assert "in reads_address_zero" in broken, broken
    assert "in reads_address_zero" in worker.log()
    assert "signal 9 (SIGKILL), peak memory " in killed
    assert "no traceback, as SIGKILL leaves none" in killed


def test_the_peak_memory_of_a_dead_child_is_told(on_file):
    on_file.send("fills_memory_and_aborts.apply_async((300,), task_id='big')")
    with on_file.worker("-P", "threads", "-c", "2") as worker:
        wait_for(lambda: "dead=1" in on_file.depth(), 25, on_file.logs)
        stop(worker)
    (reason,) = letters(on_file)
    peak = float(reason.partition("peak memory ")[2].partition(" MB")[0])
    assert 300 < peak < 1000
    assert f"signal 6 ({signal.SIGABRT.name})" in reason
    assert "in fills_memory_and_aborts" in on_file.send("print(app.AsyncResult('big').result)")


def test_a_child_that_has_run_something_is_replaced_at_once(on_file):
    """Or each death of a poisoned task would cost its slot the pause that a broken start gets, which is a minute here."""
    on_file.send("[reads_address_zero.apply_async((n,)) for n in range(2)]; work.delay_many([((n,), {}) for n in range(50)])")
    with on_file.worker("-P", "prefork", "-c", "1", FAULTS_TOO_SHORT="60") as worker:
        wait_for(lambda: "dead=2" in on_file.depth() and on_file.numbers() == set(range(50)), 40, on_file.logs)
        stop(worker)
    assert sum(line.startswith("dies") for line in on_file.lines()) == 6
