"""What a type checker knows of tasks. mypy reads this file; nothing runs it."""

from typing import assert_type

from umbel import Celery, Signature, Task, chain, group, shared_task
from umbel.result import AsyncResult, GroupResult, Progress, ResultSet

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


with app.publish_using(object()):
    add.apply_async((1, 2), using="default")
    app.send_task("add", using=object())
    add.delay_many([((1, 2), {})], using=object())
app.publish_using()  # type: ignore[call-arg]


assert_type(add.s(1), Signature[int])
assert_type(add.si(1, 2).set(countdown=1), Signature[int])
assert_type(add.s(1).delay(2), AsyncResult[int])
assert_type(add.s(1).clone().delay(2).get(), int)
assert_type(group(add.s(1)).skew(), group)
chain(add.s(1), add.s(2)).delay()
results: GroupResult[int] = app.GroupResult("id", [add.delay(1)])
assert_type(results.get(), list[int] | None)
assert_type(results.join(), list[int])
assert_type(results.progress, Progress)
assert_type(add.delay(1).progress, Progress | None)
assert_type(ResultSet[int]([add.delay(1)]).completed_count(), int)
add.progress(1, 2, "half")
add.progress("1", 2)  # type: ignore[arg-type]
