"""A producer: calls tasks of many kinds until its input closes, and notes each call that returned.

python producer.py SEED ACKS CALLS_PER_SECOND KINDS      KINDS: names with commas
"""

import contextlib
import os
import random
import select
import sys
import time
from collections.abc import Callable

import chaos_app as tasks
import chaos_flows
from chaos_ledger import append

from umbel.exceptions import OperationalError

LEASE = tasks.LEASE


class Producer:
    def __init__(self, seed: int, acks: str) -> None:
        self.chance, self.acks, self.name, self.count = random.Random(seed), acks, f"p{seed}", 0
        self.killers = 0

    def key(self, kind: str) -> str:
        self.count += 1
        return f"{self.name}-{self.count}-{kind}"

    def call(self, task, key: str, *args: object, **options: object) -> list[str]:
        task.apply_async((key, *args), task_id=key, **options)
        return [key]

    def quick(self) -> list[str]:
        return self.call(tasks.quick, self.key("quick"), self.chance.choice([0.0, 0.002, 0.02]))

    def bulk(self) -> list[str]:
        keys = [self.key("bulk") for _ in range(self.chance.randint(5, 60))]
        made = tasks.quick.delay_many([((key, self.chance.choice([0.0, 0.002])), {}) for key in keys])
        assert len(made) == len(keys)
        return keys

    def long(self) -> list[str]:
        return self.call(tasks.long, self.key("long"), self.chance.uniform(0.5, 1.5))

    def very_long(self) -> list[str]:
        return self.call(tasks.long, self.key("leases"), 3 * LEASE)

    def coro(self) -> list[str]:
        return self.call(tasks.coro, self.key("coro"), self.chance.uniform(0.2, 1.5))

    def hog(self) -> list[str]:
        return self.call(tasks.hog, self.key("hog"), self.chance.choice([0.5, 2 * LEASE]))

    def flaky(self) -> list[str]:
        return self.call(tasks.flaky, self.key("flaky"), self.chance.randint(1, 3))

    def delayed(self) -> list[str]:
        return self.call(tasks.quick, self.key("delayed"), 0.0, countdown=self.chance.uniform(0.1, 3.0))

    def links(self) -> list[str]:
        return self.call(tasks.links, self.key("links"), self.chance.randint(1, 4))

    def bomb(self) -> list[str]:
        return self.call(tasks.bomb, self.key("bomb"))

    def oom(self) -> list[str]:
        return self.call(tasks.oom, self.key("oom"), False)

    def flow(self) -> list[str]:
        key = self.key("flow")
        chaos_flows.send(key, tasks.flow_tasks)
        return [key]

    def poison(self) -> list[str]:
        return self.call(tasks.oom, self.key("poison"), True)


RARE = {
    "poison": 0.02,
    "oom": 0.05,
    "hog": 0.1,
    "very_long": 0.1,
    "bomb": 0.2,
    "long": 0.5,
    "coro": 0.5,
    "bulk": 0.7,
    "flow": 1,
    "delayed": 2,
    "flaky": 2,
    "links": 2,
}


def main(seed: str, acks: str, pace: str, kinds: str) -> None:
    producer = Producer(int(seed), acks)
    names = kinds.split(",")
    weights = [RARE.get(name, 6.0) for name in names]
    next_call = time.monotonic()
    while not select.select([0], [], [], max(0.0, next_call - time.monotonic()))[0]:
        next_call = max(next_call + 1 / float(pace), time.monotonic() - 1)
        (kind,) = producer.chance.choices(names, weights)
        method: Callable[[], list[str]] = getattr(producer, kind)
        with contextlib.suppress(OperationalError):  # not taken: nothing was promised
            append(acks, "\n".join(method()))
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
