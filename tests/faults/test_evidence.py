"""What a child leaves behind when it dies is where people look: the log, the result and the dead letter."""

import json
import signal

import pytest
from tests.faults.test_children import stop
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(60)


def letters(faults) -> list[str]:
    return json.loads(faults.send("import json; print(json.dumps([letter.reason for letter in app.broker.dead('celery')]))"))


def test_a_task_that_reads_a_wrong_address_is_buried_with_the_line_that_did_it(on_file):
    on_file.send("reads_address_zero.delay(1)")
    with on_file.worker("-P", "prefork", "-c", "1") as worker:
        wait_for(lambda: "dead=1" in on_file.depth(), 25, on_file.logs)
        stop(worker)
    (reason,) = letters(on_file)
    assert "signal 11 (SIGSEGV), peak memory " in reason
    assert 'faults_app.py", line ' in reason, reason
    assert "in reads_address_zero" in reason, reason
    assert "in reads_address_zero" in worker.log()


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


def test_a_child_that_is_killed_from_outside_is_said_to_leave_no_traceback(on_file):
    on_file.send("dies.delay(1)")
    with on_file.worker("-P", "prefork", "-c", "1") as worker:
        wait_for(lambda: "dead=1" in on_file.depth(), 25, on_file.logs)
        stop(worker)
    (reason,) = letters(on_file)
    assert "signal 9 (SIGKILL), peak memory " in reason
    assert "killed from outside, no traceback" in reason


def test_a_child_that_has_run_something_is_replaced_at_once(on_file):
    """Or each death of a poisoned task would cost its slot a second: this needs ten deaths and more in less time."""
    on_file.send("[reads_address_zero.apply_async((n,)) for n in range(4)]; work.delay_many([((n,), {}) for n in range(50)])")
    with on_file.worker("-P", "prefork", "-c", "1") as worker:
        worker.waits_to_print("ready.")
        wait_for(lambda: "dead=4" in on_file.depth() and on_file.numbers() == set(range(50)), 11, on_file.logs)
        stop(worker)
    assert sum(line.startswith("dies") for line in on_file.lines()) == 12
