"""A call without options fills a stencil, any other is written as a letter: what is sent must be the same, byte for byte."""

import decimal
import json
from binascii import b2a_base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import Celery, publish, uuid
from umbel.exceptions import EncodeError
from umbel.ids import LONGEST_NAME
from umbel.signals import after_task_publish
from umbel.wire.stencil import Slip, Stencil

printable = st.characters(exclude_categories=("C", "Z"))  # of which names are made
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids() | st.decimals() | st.datetimes()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner), max_leaves=12)
ATTRIBUTES = {
    "queue": st.sampled_from(["far", "schräg", 'quo"ted', "100%s"]),
    "routing_key": st.text(min_size=1),
    "priority": st.integers(0, 9),
    "delivery_mode": st.sampled_from([1, 2, "transient", "persistent"]),
    "ignore_result": st.booleans(),
    "compression": st.sampled_from([None, "zlib"]),
}
SETTINGS = {
    "task_default_queue": st.sampled_from(["celery", "über"]),
    "task_default_priority": st.integers(0, 9),
    "task_default_delivery_mode": st.sampled_from(["transient", "persistent"]),
    "task_ignore_result": st.booleans(),
    "task_inherit_parent_priority": st.booleans(),
    "task_repr_maxlevels": st.integers(1, 4),
    "task_routes": st.just({"*": {"queue": "routed", "priority": 2}}),
}


def drafted(task, args, kwargs):
    return publish.draft(publish.plan_of(task.app, task.name, task), task.name, args, kwargs, {})


def without_ids(draft):
    """The bytes, with names in place of the two ids that are new in each call, and of its time."""
    read = json.loads(draft.item.raw)
    tag, sent = read["properties"]["delivery_tag"], f'"umbel_sent": {read["headers"]["umbel_sent"]}'
    assert draft.item.raw.count(draft.item.id.encode()) == 3
    assert draft.item.raw.count(sent.encode()) == 1
    return draft.item.raw.replace(draft.item.id.encode(), b"<id>").replace(tag.encode(), b"<tag>").replace(sent.encode(), b"<sent>")


def as_a_letter(task, args, kwargs):
    """The draft of the same call while somebody listens."""

    def listen(**_): ...

    after_task_publish.connect(listen)
    try:
        return drafted(task, args, kwargs)
    finally:
        after_task_publish.disconnect(listen)


def on(app, name="stencil.f", **options):
    @app.task(name=name, **options)
    def f(*args, **kwargs): ...

    return f


@given(
    args=st.lists(values, max_size=3),
    kwargs=st.dictionaries(st.text(), values, max_size=3),
    name=st.text(printable, min_size=1, max_size=LONGEST_NAME),
    attributes=st.fixed_dictionaries({}, optional=ATTRIBUTES),
    settings=st.fixed_dictionaries({}, optional=SETTINGS),
)
def test_a_filled_stencil_is_the_letter_byte_for_byte(args, kwargs, name, attributes, settings):
    with Celery("stencil", broker="memory://stencil", **settings) as app:
        task = on(app, name, **attributes)
        letter, quick = as_a_letter(task, tuple(args), kwargs), drafted(task, tuple(args), kwargs)
        assert without_ids(quick) == without_ids(letter)
        assert (quick.item.queue, quick.item.priority, quick.item.due) == (letter.item.queue, letter.item.priority, letter.item.due)
        assert (quick.name, quick.ignored) == (letter.name, letter.ignored)


@pytest.mark.parametrize("attributes", [{}, {"queue": "far", "priority": 3, "ignore_result": True}])
def test_a_call_without_options_takes_the_stencil(attributes):
    with Celery("stencil", broker="memory://stencil") as app:
        task = on(app, **attributes)
        assert drafted(task, (1,), {}).told is None
        assert as_a_letter(task, (1,), {}).told is not None


@pytest.mark.parametrize("attributes", [{"expires": 60}, {"serializer": "yaml"}, {"compression": "zlib"}])
def test_a_task_whose_calls_differ_in_more_takes_none(attributes):
    with Celery("stencil", broker="memory://stencil") as app:
        assert drafted(on(app, **attributes), (1,), {}).told is not None


def test_a_change_of_the_task_or_of_a_setting_changes_the_next_call():
    with Celery("stencil", broker="memory://stencil") as app:
        task = on(app)
        assert drafted(task, (), {}).item.queue == "celery"
        app.conf.task_default_queue = "second"
        assert drafted(task, (), {}).item.queue == "second"
        task.queue = "third"
        assert json.loads(drafted(task, (), {}).item.raw)["properties"]["delivery_info"]["routing_key"] == "third"


def test_a_stencil_first_used_inside_a_task_inherits_nothing_from_it():
    with Celery("stencil", broker="memory://stencil", task_inherit_parent_priority=True) as app:
        child = on(app, "stencil.child")

        @app.task
        def parent():
            drafted(child, (), {})

        parent.apply(priority=7)
        headers = json.loads(drafted(child, (), {}).item.raw)["headers"]
        assert (headers["parent_id"], headers["root_id"] == headers["id"]) == (None, True)


def test_both_ways_refuse_alike_what_is_no_json():
    with Celery("stencil", broker="memory://stencil") as app:
        task = on(app)
        said = []
        for draft in (drafted, as_a_letter):
            with pytest.raises(EncodeError, match=r"stencil\.f") as caught:
                draft(task, ({1, 2},), {"x": decimal.Decimal(1)})
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_an_envelope_in_another_order_makes_no_stencil():
    slip, body = Slip(*(uuid() for _ in range(6)), sent="1.5"), b"some body"
    text = " ".join((slip.id, b2a_base64(body, newline=False).decode(), slip.tag))
    with pytest.raises(ValueError, match="order of the fields"):
        Stencil(text.encode(), slip, body)
