import re
from types import SimpleNamespace

import pytest

from umbel.exceptions import ImproperlyConfigured, QueueNotFound
from umbel.routing import Destination, Exchange, Queue, Router


def to_mail(name, args, kwargs, options, task=None, **kw):
    return "mail" if name.startswith("mail.") else None


class ByArgument:
    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": kwargs["to"]} if kwargs else None


def queue_of(routes, name="feed.fetch", options=None, **call):
    return Router(routes=routes).route(name, options=options, **call).queue


def test_a_call_without_a_route_goes_to_the_default_queue():
    assert Router().route("a") == Destination(queue="celery", exchange="", routing_key="celery")
    assert Router(default_queue="d").route("a").queue == "d"


@pytest.mark.parametrize(
    "routes",
    [
        {"feed.fetch": "feeds"},
        {"feed.*": {"queue": "feeds"}},
        {re.compile(r"feed\..+"): "feeds"},
        [("other", "x"), ("feed.*", {"queue": "feeds"})],
        ([("other", "x"), ("feed.*", "feeds")],),
        ("feed.*", {"queue": "feeds"}),
        [to_mail, {"feed.fetch": "feeds"}],
        [("mail.*", "mail"), ByArgument(), {"feed.fetch": "feeds"}],
        lambda name, args, kwargs, options, task=None, **kw: "feeds",
    ],
)
def test_each_spelling_of_a_route_is_understood(routes):
    assert queue_of(routes) == "feeds"


def test_a_router_may_be_a_dotted_path(monkeypatch, tmp_path):
    (tmp_path / "routers_of_a_test.py").write_text("def route(name, args, kwargs, options, task=None, **kw):\n    return 'feeds'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert queue_of("routers_of_a_test.route") == "feeds"


def test_a_router_that_cannot_be_imported_is_named():
    with pytest.raises(ImproperlyConfigured, match=r"'nowhere\.route' in task_routes cannot be imported"):
        Router(routes="nowhere.route")


def test_a_route_that_is_none_of_these_is_refused():
    with pytest.raises(ImproperlyConfigured, match="42 in task_routes is no route"):
        Router(routes=[42])


def test_a_router_sees_the_arguments_of_the_call():
    assert queue_of([ByArgument()], kwargs={"to": "there"}) == "there"


def test_an_exact_name_comes_before_a_pattern():
    assert queue_of({"feed.*": "feeds", "feed.fetch": "fetches"}) == "fetches"


def test_the_first_pattern_that_fits_decides():
    assert queue_of({"feed.f*": "first", "feed.*": "second"}) == "first"


def test_options_of_the_call_come_before_the_route():
    routes = {"feed.*": {"queue": "feeds", "priority": 3}}
    assert queue_of(routes, options={"queue": "mine"}) == "mine"
    assert queue_of(routes, options={"queue": None}) == "feeds"
    assert Router(routes=routes).route("feed.x").priority == 3
    assert Router(routes=routes).route("feed.x", options={"priority": 0}).priority == 0


def test_a_message_without_a_priority_gets_the_default_one():
    assert Router(default_priority=5).route("a").priority == 5
    assert Router().route("a").priority is None


def test_what_else_a_route_says_is_handed_on():
    assert Router(routes={"a": {"queue": "q", "expires": 60}}).route("a").options == {"expires": 60}


def test_a_missing_queue_is_made():
    router = Router()
    assert router.route("a", options={"queue": "new"}) == Destination(queue="new", exchange="", routing_key="new")
    made = router.queues["new"]
    assert (made.exchange, made.routing_key) == (Exchange("new"), "new")


def test_a_missing_queue_is_an_error_where_none_may_be_made():
    router = Router(["a", "b"], create_missing=False, default_queue="a")
    assert router.route("x").queue == "a"
    with pytest.raises(QueueNotFound, match=r"Queue 'new' missing from task_queues\..*Known: a, b"):
        router.route("x", options={"queue": "new"})


def test_a_missing_queue_may_be_made_for_quorums():
    router = Router(missing_queue_type="quorum", missing_exchange_type="topic")
    made = router.queue("new")
    assert made.queue_arguments == {"x-queue-type": "quorum"}
    assert made.exchange == Exchange("new", "topic")


def test_without_queues_the_default_queue_is_the_only_one():
    router = Router(default_queue_type="quorum", default_exchange="ex", default_routing_key="key")
    assert list(router.queues) == ["celery"]
    only = router.queues["celery"]
    assert (only.exchange, only.routing_key, only.queue_arguments) == (Exchange("ex"), "key", {"x-queue-type": "quorum"})


def test_a_queue_without_exchange_or_key_gets_the_default_ones():
    mine = Queue("q")
    router = Router([mine], default_exchange="ex", default_routing_key="key")
    assert (router.queues["q"].exchange, router.queues["q"].routing_key) == (Exchange("ex"), "key")
    assert mine.exchange is None


def test_queues_may_be_a_mapping_of_options():
    router = Router({"q": {"exchange": "ex", "exchange_type": "topic", "binding_key": "k.#"}})
    assert router.queues["q"].exchange == Exchange("ex", "topic")
    assert router.queues["q"].routing_key == "k.#"


def test_an_object_that_looks_like_a_queue_is_taken_as_one():
    foreign = SimpleNamespace(
        name="q", exchange=SimpleNamespace(name="ex", type="topic"), routing_key="k", queue_arguments=None, max_priority=7, durable=True
    )
    made = Router([foreign]).queues["q"]
    assert (made.exchange, made.routing_key, made.queue_arguments) == (Exchange("ex", "topic"), "k", {"x-max-priority": 7})
    assert Router().route("a", options={"queue": foreign}).queue == "q"


def test_the_largest_priority_is_declared_unless_the_queue_has_its_own():
    router = Router([Queue("a"), Queue("b", queue_arguments={"x-max-priority": 3})], queue_max_priority=9)
    assert [queue.queue_arguments["x-max-priority"] for queue in router.queues.values()] == [9, 3]


def test_a_direct_queue_is_addressed_by_its_name():
    assert Router([Queue("q", "ex", "key")]).route("a", options={"queue": "q"}) == Destination(queue="q", exchange="", routing_key="q")


def test_a_queue_of_another_kind_is_addressed_through_its_exchange():
    router = Router([Queue("q", Exchange("ex", "topic"), "k.#")])
    assert router.route("a", options={"queue": "q", "routing_key": "k.1"}) == Destination(queue="q", exchange="ex", routing_key="k.1")


def test_an_exchange_and_a_key_lead_to_the_queue_bound_to_them():
    router = Router([Queue("a", "media", "audio"), Queue("v", "media", "video")], default_queue="a")
    found = router.route("t", options={"exchange": "media", "routing_key": "video"})
    assert found == Destination(queue="v", exchange="media", routing_key="video")
    assert router.route("t", options={"routing_key": "video"}).queue == "v"


def test_a_topic_exchange_leads_to_the_queue_whose_pattern_the_key_matches():
    exchange = Exchange("media", "topic")
    router = Router(
        [Queue("celery"), Queue("exact", exchange, "video.raw"), Queue("one", exchange, "*.hd"), Queue("all", exchange, "video.#")]
    )
    keys = {"video.raw": "exact", "film.hd": "one", "video.x.y": "all", "a.b.hd": "celery", "videos": "celery"}
    for key, queue in keys.items():
        assert router.route("t", options={"exchange": "media", "routing_key": key}) == Destination(
            queue=queue, exchange="media", routing_key=key
        )


def test_a_text_in_place_of_queues_is_refused():
    with pytest.raises(ImproperlyConfigured, match="task_queues is 'abc'"):
        Router("abc")


def test_queues_of_one_name_are_equal():
    assert Queue("q", "a") == Queue("q", "b")
    assert len({Queue("q"), Queue("q")}) == 1
    assert str(Queue("q")) == "q"
