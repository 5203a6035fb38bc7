"""What the body of a chord gets is what `get()` of the header gives: a member has one place, and if it ends with a group a list."""

import uuid

import pytest

from umbel import Umbel, chain, chord, group
from umbel.canvas.large import CHUNK
from umbel.contrib.testing.worker import start_worker
from umbel.exceptions import ChordError
from umbel.joining import allow_join_result


@pytest.fixture(scope="module")
def app():
    url = f"memory://{uuid.uuid4().hex}"
    with (
        Umbel("values", broker=url, backend=url, set_as_current=False) as app,
        start_worker(app, pool="threads", concurrency=2),
        allow_join_result(),
    ):
        yield app


@pytest.fixture(params=["apply_async", "apply"], ids=["worker", "eager"])
def run(request):
    return lambda canvas: getattr(canvas, request.param)()


@pytest.fixture(scope="module")
def body(app):
    return app.task(name="body")(lambda values: values)


@pytest.fixture(scope="module")
def fails(app):
    return app.task(name="fails", typing=False)(lambda *args: 1 / 0)


@pytest.fixture(scope="module")
def t(app):
    return app.task(name="t", typing=False)(lambda *args: args[-1])


@pytest.fixture(scope="module")
def m(t):
    """A member of one task, whose value is its name."""
    return t.si


# `m` is a member, `f` makes a chain of one and then a group of others, as most of these headers have one.
HEADERS = {
    "a chain that ends with a group": (lambda m, f: [f("a", m("b"), m("c")), m("d")], [["b", "c"], "d"]),
    "nothing but such a chain": (lambda m, f: [f("a", m("b"), m("c"))], [["b", "c"]]),
    "two such chains": (lambda m, f: [f("a", m("b"), m("c")), f("d", m("e"), m("f"))], [["b", "c"], ["e", "f"]]),
    "such a chain in such a chain": (lambda m, f: [f("a", f("b", m("c"), m("d")), m("e")), m("f")], [[["c", "d"], "e"], "f"]),
    "a group": (lambda m, f: [group(m("a"), m("b")), m("c")], ["a", "b", "c"]),
    "a group of such a chain": (lambda m, f: [group(f("a", m("b"), m("c")), m("d")), m("e")], [["b", "c"], "d", "e"]),
    "a group in the group of such a chain": (lambda m, f: [f("a", group(m("b"), m("c")), m("d")), m("e")], [["b", "c", "d"], "e"]),
    "a chain and a group of one": (lambda m, f: [f("a", m("b")), m("c")], ["b", "c"]),
    "a chain and an empty group": (lambda m, f: [m("a") | group([]), m("b")], ["a", "b"]),
    "an empty group and an empty chain": (lambda m, f: [group([]), chain(), m("a")], ["a"]),
    "a chord with a group for its body": (lambda m, f: [chord([m("a")], group(m("b"), m("c"))), m("d")], [["b", "c"], "d"]),
    "a chord with a group of one for its body": (lambda m, f: [chord([m("a")], group(m("b"))), m("c")], [["b"], "c"]),
    "a chord with an empty group for its body": (lambda m, f: [chord([m("a")], group([])), m("b")], [[], "b"]),
    "a chord of nothing": (lambda m, f: [chord([], group([])), m("a")], [[], "a"]),
    "a chord in the group of a chain": (lambda m, f: [f("a", chord([m("b")], m("c")), m("d")), m("e")], [["c", "d"], "e"]),
    "a chain of groups": (lambda m, f: [group(m("a"), m("b")) | group(m("c"), m("d")), m("e")], [["c", "d"], "e"]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_body_gets_what_its_header_gives(m, body, run, name):
    make, expected = HEADERS[name]
    result = run(chord(make(m, lambda first, *then: m(first) | group(*then)), body.s()))
    assert result.get(timeout=10) == expected
    assert result.parent.get(timeout=10) == expected


def test_what_follows_a_group_gets_what_the_group_gives(m, t, body, run):
    assert run(group(m("a") | group(m("b"), m("c")), m("d")) | body.s()).get(timeout=10) == [["b", "c"], "d"]
    assert run(m("z") | group(t.s("a") | group(t.s("b"), t.s("c")), t.s("d")) | body.s()).get(timeout=10) == [["b", "c"], "d"]
    found = run(chord([m("a") | group(m("b"), m("c")), m("d")], group(body.s(), body.s())))
    assert found.get(timeout=10) == [[["b", "c"], "d"]] * 2


def test_a_task_that_a_group_replaces_has_its_values_for_its_value(app, m, body, run):
    @app.task(name="unfold", bind=True)
    def unfold(self):
        raise self.replace(m("a") | group(m("b"), m("c")))

    assert run(chord([unfold.si(), m("d")], body.s())).get(timeout=10) == [["b", "c"], "d"]
    assert run(chord([m("x") | group(unfold.si(), m("d")), m("e")], body.s())).get(timeout=10) == [[["b", "c"], "d"], "e"]


def test_what_a_member_adds_stands_behind_the_others_of_its_group(app, m, body):
    @app.task(name="adds", bind=True)
    def adds(self, name):
        self.add_to_chord(m("x") | group(m("y"), m("z")))
        return name

    assert chord([adds.si("a"), m("b")], body.s())().get(timeout=10) == ["a", "b", ["y", "z"]]
    assert chord([m("a") | group(adds.si("b"), m("c")), m("d")], body.s())().get(timeout=10) == [["b", "c", ["y", "z"]], "d"]


def test_a_failure_in_a_group_of_a_member_is_told_as_that_of_a_member(m, fails, body, run):
    failed = f"fails {uuid.uuid4()}"
    inner = m("b") | group(fails.si().set(task_id=failed), m("c"))
    failure = run(chord([m("a") | group(inner, m("d")), m("e")], body.s())).get(timeout=10, propagate=False)
    assert isinstance(failure, ChordError)
    assert str(failure) == f"Dependency {failed} raised ZeroDivisionError('division by zero')"


def test_members_of_a_large_header_have_one_place_each(m, body):
    header = (m(n) | group(m(n), m(-n)) if n % 200 == 0 else m(n) for n in range(CHUNK + 101))
    result = chord(header, body.s())()
    assert result.get(timeout=20) == [[n, -n] if n % 200 == 0 else n for n in range(CHUNK + 101)]
