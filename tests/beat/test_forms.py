"""A message that is filled into a form is the one that would have been written."""

import json

import pytest

from umbel import Umbel, signals
from umbel.beat import forms as forms_module
from umbel.beat.entry import Entry
from umbel.beat.forms import Forms
from umbel.beat.sending import BeatLazyFunc, Run, prepared, run_id
from umbel.exceptions import EncodeError
from umbel.ids import uuid
from umbel.schedules import schedule
from umbel.wire.message import decode

SLOT = 1_774_000_000.0
CASES = {
    "none": {},
    "arguments": {"args": [1, "ü", {"a": None}], "kwargs": {"x": 2.5}},
    "made when sent": {"args": [BeatLazyFunc(str, 5)]},
    "queue": {"options": {"queue": "night"}},
    "priority and limits": {"options": {"priority": 3, "time_limit": 60, "soft_time_limit": 2.5, "ignore_result": True}},
    "grace": {"misfire": "skip"},
    "a name to be escaped": {"name": 'nightly "ü" \\ 日报'},
}
WITHOUT = {
    "overlap": {"overlap": "skip"},
    "expires": {"options": {"expires": 60}},
    "headers": {"options": {"headers": {"x": 1}}},
    "something follows": {"options": {"link": []}},
    "its id": {"options": {"task_id": "mine"}},
    "a dict": {"options": {"queue": {"no": "text"}}},
}


class NoForms:
    def find(self, *_):
        return None


@pytest.fixture
def app():
    app = Umbel("forms", broker=f"memory://{uuid()}", result_backend="memory://", set_as_current=False)
    app.task(lambda *args, **kwargs: None, name="known", time_limit=9)
    app.task(lambda x: None, name="strict")
    return app


def run(**said):
    return Run(Entry(**{"name": "e", "task": "known", "schedule": schedule(1), **said}), SLOT)


def readable(draft):
    """All that a message says, without what differs from one to the next."""
    message = decode(draft.item.raw)
    message.properties.pop("delivery_tag")
    message.headers.pop("umbel_sent")
    item = {name: getattr(draft.item, name) for name in draft.item.__struct_fields__ if name != "raw"}
    return message, item, draft.ignored, list(json.loads(draft.item.raw))


@pytest.mark.parametrize("task", ["known", "unknown"])
@pytest.mark.parametrize("case", CASES)
def test_a_filled_form_says_what_a_message_that_is_written_says(app, case, task, monkeypatch):
    forms, entry = Forms(), run(**{"task": task, **CASES[case]})
    monkeypatch.setattr(forms_module, "saferepr", counted := Counted(forms_module.saferepr))
    filled = [readable(prepared(app, entry, forms)) for _ in range(2)]
    assert counted.calls == 4
    written = readable(prepared(app, entry, NoForms()))
    assert filled == [written, written]
    name = f"{entry.entry.name}@2026-03-20T09:46:40Z"
    assert (written[0].headers["umbel_slot"], written[0].headers["celery_beat_task"]) == (name, True)
    assert written[1]["id"] == written[1]["once"] == run_id(app, name)


class Counted:
    def __init__(self, called):
        self.called, self.calls = called, 0

    def __call__(self, *args):
        self.calls += 1
        return self.called(*args)


@pytest.mark.parametrize("case", WITHOUT)
def test_what_is_not_the_same_in_each_run_has_no_form(app, case):
    assert Forms().find(app, app.tasks["known"], run().entry) is not None
    assert Forms().find(app, app.tasks["known"], run(**WITHOUT[case]).entry) is None


def test_who_listens_sees_each_message(app):
    seen = []

    def see(headers, **_):
        headers["seen"] = True
        seen.append(headers["umbel_slot"])

    with_signal = Forms()
    prepared(app, run(), with_signal)
    signals.before_task_publish.connect(see)
    try:
        draft = prepared(app, run(), with_signal)
    finally:
        signals.before_task_publish.disconnect(see)
    assert decode(draft.item.raw).headers["seen"]
    assert len(seen) == 1


def test_a_changed_setting_makes_new_forms(app):
    forms = Forms()
    assert decode(prepared(app, run(task="u"), forms).item.raw).properties["delivery_mode"] == 2
    app.conf.task_default_delivery_mode = "transient"
    assert decode(prepared(app, run(task="u"), forms).item.raw).properties["delivery_mode"] == 1


def test_forms_are_bounded(app, monkeypatch):
    monkeypatch.setattr(forms_module, "MOST", 3)
    forms = Forms()
    for n in range(10):
        prepared(app, run(options={"queue": f"q{n}"}), forms)
    assert len(forms._made) <= 3


def test_arguments_that_cannot_be_sent_or_taken_are_refused(app):
    forms = Forms()
    with pytest.raises(EncodeError, match="The arguments of known cannot be sent"):
        prepared(app, run(args=[object()]), forms)
    with pytest.raises(TypeError):
        prepared(app, run(task="strict", args=[1, 2]), forms)
