"""The broker with faults: it fails where the plan says, and nowhere else."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.processes import wait_for

from umbel import Umbel
from umbel.broker import Broker, Item
from umbel.drivers.memory import MemoryBroker
from umbel.drivers.sqlite import SQLiteBroker
from umbel.exceptions import BrokerUnavailable
from umbel.ids import uuid
from umbel.testing import Act, Fault, FaultyBroker, faulty_broker


def message(queue="q"):
    return Item(raw=b"{}", queue=queue, id=uuid())


def broker_with(*plan):
    return FaultyBroker(MemoryBroker(f"memory://{uuid()}"), plan)


def ready(broker):
    return broker.depth(["q"])["q"].ready


def test_it_is_a_broker_with_every_method_of_one():
    broker = broker_with()
    assert isinstance(broker, Broker)
    broker.publish([message()])
    assert ready(broker) == 1
    assert broker.features == broker.broker.features
    assert broker.happened == []


def test_a_refused_call_does_nothing_and_the_next_one_is_carried_out():
    broker = broker_with(Fault("publish", Act.REFUSE))
    with pytest.raises(BrokerUnavailable) as refused:
        broker.publish([message()])
    assert not refused.value.maybe_sent
    assert ready(broker) == 0
    broker.publish([message()])
    assert ready(broker) == 1
    assert broker.happened == [("publish", 1, Act.REFUSE)]


def test_a_call_whose_reply_is_lost_was_carried_out():
    broker = broker_with(Fault("publish", Act.LOSE_REPLY, call=2, times=2))
    broker.publish([message()])
    for _ in range(2):
        with pytest.raises(BrokerUnavailable) as lost:
            broker.publish([message()])
        assert lost.value.maybe_sent
    broker.publish([message()])
    assert ready(broker) == 4


def test_a_hanging_call_goes_on_when_it_is_released():
    broker = broker_with(Fault("publish", Act.HANG))
    caller = threading.Thread(target=broker.publish, args=([message()],))
    caller.start()
    assert broker.hangs()
    assert ready(broker) == 0
    broker.release()
    caller.join(10)
    assert ready(broker) == 1


def test_a_delayed_call_is_carried_out():
    broker = broker_with(Fault("publish", Act.DELAY, seconds=0.001))
    broker.publish([message()])
    assert ready(broker) == 1


@pytest.mark.parametrize(("act", "left"), [(Act.KILL, 1), (Act.KILL_AFTER, 2)])
def test_a_kill_ends_the_process_before_or_after_the_call(tmp_path, act, left):
    url = f"sqlite:///{tmp_path}/umbel.sqlite3"
    pid = os.fork()
    if pid == 0:
        broker = FaultyBroker(SQLiteBroker(url), [Fault("publish", act, call=2)])
        for _ in range(3):
            broker.publish([message()])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    broker = SQLiteBroker(url)
    assert ready(broker) == left
    broker.close()


def test_one_seed_gives_the_same_faults_again():
    def faults(seed):
        broker = FaultyBroker.seeded(MemoryBroker(f"memory://{uuid()}"), seed, rate=0.3)
        for _ in range(50):
            try:
                broker.publish([message()])
            except BrokerUnavailable:
                continue
        return broker.happened

    assert faults(1) == faults(1) != faults(2)
    assert 5 < len(faults(1)) < 30


def test_a_plan_that_names_no_method_of_a_broker_says_so():
    with pytest.raises(ValueError, match="no method 'publsh'"):
        broker_with(Fault("publsh", Act.REFUSE))


def test_an_app_uses_it_while_the_block_runs():
    app = Umbel("with_faults", broker=f"memory://{uuid()}", set_as_current=False)
    task = app.task(lambda: None, name="nothing")
    with faulty_broker(app, [Fault("publish", Act.LOSE_REPLY)]) as broker:
        with pytest.raises(BrokerUnavailable):
            task.delay()
        task.delay()
        assert broker.calls["publish"] == 2
    task.delay()
    assert wait_for(lambda: app.broker.depth(["celery"])["celery"].ready == 3)


def test_the_example_of_the_page_about_it_runs(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/test-with-faults.md").read_text()
    (tmp_path / "test_shop.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_when_many_calls_are_sent_in_steps_and_a_later_one_fails_the_error_says_that_the_first_were_sent():
    app = Umbel("steps", broker=f"memory://{uuid()}", set_as_current=False)
    task = app.task(lambda number: None, name="steps")
    with faulty_broker(app, [Fault("publish", Act.REFUSE, call=2, times=99)]), pytest.raises(BrokerUnavailable) as raised:
        task.delay_many(((number,), {}) for number in range(1200))
    assert raised.value.maybe_sent
    assert str(raised.value).endswith("The first 500 of 1200 messages were sent before.")
    assert app.broker.depth(["celery"])["celery"].ready == 500
    app.close()
