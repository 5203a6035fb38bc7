"""What a worker prints when it starts, line by line as tools look for it."""

import pytest

from umbel.routing import Exchange, Queue
from umbel.worker.banner import banner


def shown(**more):
    values = {
        "node": "celery@vm", "version": "0.1.0", "app_name": "mysite", "app_id": 0x7FC0, "transport": "redis://127.0.0.1:6379/0",
        "results": "redis://127.0.0.1:6379/1", "concurrency": 2, "pool": "solo", "queues": ["celery"],
    }  # fmt: skip
    return banner(**values | more)


@pytest.mark.parametrize(
    "line",
    [
        "celery@vm umbel v0.1.0",
        ".> app:         mysite:0x7fc0",
        ".> transport:   redis://127.0.0.1:6379/0",
        ".> results:     redis://127.0.0.1:6379/1",
        ".> concurrency: 2 (solo)",
        ".> task events: OFF (not built yet)",
        "                .> celery           exchange=celery(direct) key=celery",
    ],
)
def test_the_lines_have_celerys_shape(line):
    assert line in shown()


def test_its_parts_are_in_celerys_order():
    text = shown(tasks=["b", "a"], show_tasks=True, notes=["broker_heartbeat"])
    places = [
        text.index(part) for part in ("[config]", "[queues]", "[tasks]", "\n  . a\n  . b\n", "without effect", "\n  - broker_heartbeat\n")
    ]
    assert places == sorted(places)


def test_tasks_are_listed_only_when_asked():
    assert "secret_task" not in shown(tasks=["secret_task"])


def test_a_queue_shows_where_it_is_bound():
    text = shown(queues=[Queue("mail", Exchange("post", "topic"), "mail.#")])
    assert ".> mail             exchange=post(topic) key=mail.#\n" in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:pw@h:1/0", "redis://:**@h:1/0"),
        ("redis://me:p/w@d@h", "redis://me:**@h"),
        ("redis://h/0?password=pw&a=1", "redis://h/0?password=**&a=1"),
        ("redis://:pw@a;redis://:pw@b", "redis://:**@a;redis://:**@b"),
        ("sqlite:///q.sqlite3", "sqlite:////srv/site/q.sqlite3"),
        ("sqlite:////abs/q.sqlite3", "sqlite:////abs/q.sqlite3"),
        ("sqlite://", "sqlite://"),
        ("", "disabled://"),
    ],
)
def test_addresses_are_masked_and_absolute(url, expected):
    assert f".> results:     {expected}\n" in shown(results=url, base_dir="/srv/site")


def test_colours_are_there_only_when_asked():
    assert "\x1b[" not in shown()
    assert "\x1b[36m" in shown(color=True)


def test_no_line_ends_in_blanks():
    assert all(line == line.rstrip() for line in shown(platform="Linux", now="now").splitlines())
