"""What a Redis that loses its data, or is killed, costs: one that flushes before it answers has every message that it acknowledged."""

import threading

import pytest
from tests.faults.conftest import faults_on
from tests.processes import wait_for

from umbel import Celery
from umbel.exceptions import BrokerUnavailable
from umbel.wire.message import glance

redis = pytest.importorskip("redis")
pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]


def test_every_acknowledged_message_outlives_a_killed_redis_that_flushes_always(private_redis):
    acknowledged: list[str] = []

    def produce(part: int) -> None:
        with Celery("loss", broker=private_redis.url, set_as_current=False) as app:
            task = app.task(lambda number: number, name="work")
            for number in range(1_000_000):
                name = f"{part}-{number}"
                delayed = {"countdown": 3600} if number % 3 == 0 else {}
                try:
                    task.apply_async((number,), task_id=name, retry=False, **delayed)
                except BrokerUnavailable:
                    return
                acknowledged.append(name)

    for part in range(3):
        before = len(acknowledged)
        producers = [threading.Thread(target=produce, args=(10 * part + n,)) for n in range(2)]
        for producer in producers:
            producer.start()
        wait_for(lambda before=before: len(acknowledged) > before + 200, 20)
        private_redis.kill()
        for producer in producers:
            producer.join(20)
        private_redis.start()
    with redis.Redis(port=private_redis.port) as client:
        kept = client.lrange("celery", 0, -1)
        kept += [member.partition(b":")[2] for member in client.zrange("{celery}.delayed", 0, -1)]
    assert set(acknowledged) - {glance(raw).id for raw in kept} == set()


def test_a_worker_whose_broker_lost_its_data_says_so_and_what_it_stops(private_redis, tmp_path):
    place = faults_on(private_redis.url, private_redis.url, tmp_path)
    with place.worker("-c", "1") as worker:
        place.send("begins.apply_async((1, 30), task_id='long')")
        wait_for(lambda: "begins 1" in place.lines(), 20, place.logs)
        with redis.Redis(port=private_redis.port) as client:
            client.flushall()
        worker.waits_to_print("any more, though its lease had not ended: the broker's data was lost")
        worker.waits_to_print(".begins[long].")
        assert "were given to others" not in worker.log()
        place.send("work.delay(7).get(timeout=60)")
