"""What a type checker knows of tasks. mypy reads this file; nothing runs it."""

from typing import assert_type

from umbel import Celery, Task, shared_task
from umbel.result import AsyncResult

app = Celery("typing")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(queue="slow")
def shout(text: str) -> str:
    return text.upper()


@app.task(bind=True, max_retries=5)
def bound(self: Task[..., int], x: int) -> int:
    return x + self.request.retries


@shared_task
def shared(x: int) -> bool:
    return x > 0


@shared_task(bind=True)
def shared_bound(self: Task[..., str], name: str) -> str:
    return name


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(add.delay(1).get(), int)
assert_type(add(1, 2), int)
assert_type(add.apply_async((1, 2)), AsyncResult[int])
assert_type(shout.delay("a").get(), str)
assert_type(bound.delay(1).get(), int)
assert_type(shared.delay(1).get(), bool)
assert_type(shared_bound.delay("a").get(), str)
assert_type(fetch.delay("a").get(), bytes)


async def coroutine() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await add.delay(1).aget(), int)


add.delay("1")  # type: ignore[arg-type]
add.delay()  # type: ignore[call-arg]
bound.delay(None, 1)  # type: ignore[call-arg,arg-type]
shared.delay(z=1)  # type: ignore[call-arg]
