"""Hostile messages, in this process: what a worker's parent and child make of each, and of thousands of mutations of real ones."""

import json
import random
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import pytest
from tests.hostile import corpus

from umbel import Celery, uuid
from umbel.broker import DeadLetter, Delivery, Evidence, Verb
from umbel.cli.dead import as_text
from umbel.exceptions import ContentDisallowed, DecodeError, InvalidTaskError, NotRegistered, SecurityError, SerializationError
from umbel.execution.outcome import Action, Job, encode_outcomes
from umbel.execution.request import open_request
from umbel.execution.runner import TaskRunner
from umbel.execution.verdict import Postponed, Refused, Request, Void, admit
from umbel.letters import Letter, as_document
from umbel.meta import result_of
from umbel.wire.marks import mark, marks
from umbel.wire.message import decode, glance

FIXTURES = Path(__file__).parents[1] / "compat" / "fixtures"
MARKER = "/nonexistent/umbel-exploited"
MESSAGES = corpus.messages(MARKER)
DOCUMENTS = corpus.documents(MARKER)
NOW = 1_800_000_000.0
MUTATIONS = 4000


@pytest.fixture(scope="module")
def app():
    place = f"memory://{uuid()}"
    with Celery("hostile_app", broker=place, backend=place) as app:
        app.conf.update(
            accept_content=["json", "yaml", "msgpack"],
            task_message_max_size=corpus.LIMIT,
            result_max_size=corpus.LIMIT,
            result_extended=True,
        )

        @app.task(bind=True, name=corpus.TASK)
        def work(self, number=0, *rest, **more):
            return number

        for name in ("capapp.add", "capapp.noop"):
            app.task(lambda *args, **kwargs: None, name=name)
        yield app


def held(raw):
    return Delivery(queue="celery", tag="1:1:0", owner="w", raw=raw, fence=1)


def fate_of(app, raw):
    """Say what becomes of a message, as the worker decides it, and why."""
    match admit(held(raw), app.tasks, NOW, limit=corpus.LIMIT):
        case Refused(verb=Verb.PARK, reason=reason):
            return corpus.PARKED, reason
        case Refused(reason=reason):
            return corpus.DEAD, reason
        case Void():
            return corpus.REVOKED, ""
        case Postponed(raw=later):
            assert decode(later).headers["umbel_waited"] is True
            return corpus.DELAYED, ""
        case Request():
            outcome = TaskRunner(app, node="w1").run(Job(1, 1, raw, "celery"))
            assert encode_outcomes([outcome])
            return (corpus.DEAD, outcome.reason) if outcome.action is Action.BURY else (corpus.RUNS, "")


@pytest.mark.parametrize("name", MESSAGES)
def test_each_hostile_message_ends_where_it_should_and_its_reason_says_why(app, name):
    message = MESSAGES[name]
    fate, reason = fate_of(app, message.raw)
    assert fate == message.fate, reason
    assert message.word in reason
    assert reason.isprintable()
    assert len(reason) < 1200
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("name", MESSAGES)
def test_each_hostile_message_can_be_shown_to_an_operator(app, name):
    entry = DeadLetter(queue="celery", place="dead", key="1", id="1", raw=MESSAGES[name].raw, reason="why", evidence=Evidence(), at=1.0)
    letter = Letter(entry)
    document = {**as_document(letter), "headers": letter.message and letter.message.headers, "call": letter.call(app.accepted_content())}
    assert json.dumps(document, default=repr)
    assert "\x1b" not in as_text(document)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_hostile_result_is_a_value_or_a_clear_refusal(app, name):
    data, refused = DOCUMENTS[name]
    began = time.process_time()
    assert type(read(app, data)) is (str if refused else bool)
    assert time.process_time() - began < 5


def read(app, data):
    """Return the text of the refusal of a document, or True if it has a value that stops nobody from afar."""
    try:
        value = result_of(app.read_meta(data))
    except (SerializationError, SecurityError) as exc:
        return str(exc)[:2000]
    return not isinstance(value, BaseException) or isinstance(value, Exception)


def fixtures():
    found = [*json.loads((FIXTURES / "foreign.json").read_text()).values(), *json.loads((FIXTURES / "restored.json").read_text()).values()]
    for messages in json.loads((FIXTURES / "produced.json").read_text()).values():
        found += [each for each in messages if isinstance(each, str)]
    return [each.encode("utf-8", "surrogateescape") for each in found]


VALUES = [None, True, -1, 0, 7, 1 << 70, 1.5, float("nan"), "", "x", "\ud800", "\x1b[2J\n", "x" * 5000, [], [1], {}, [[[]]],
          {"__type__": "os", "__value__": 1}, "2099-01-01", "gzip", "application/x-yaml", "application/x-python-serialize",
          "hostile_app.work"]  # fmt: skip


def mutated(rng, raw):
    """Change some bytes of a message, or some of its fields."""
    if rng.random() < 0.4:
        data = bytearray(raw)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 20)]
                case _:
                    data[at:at] = bytes(rng.choices(b'{}[]",:0\\\x00\xff', k=rng.randint(1, 5)))
            if not data:
                return b""
        return bytes(data)
    try:
        value = json.loads(raw)
    except ValueError:
        return raw[: rng.randrange(len(raw) + 1)]
    if isinstance(value, dict) and isinstance(value.get("headers"), dict) and rng.random() < 0.5:
        value["headers"]["task"] = corpus.TASK  # or most would only be parked
    for _ in range(rng.randint(1, 3)):
        change(rng, value)
    return json.dumps(value).encode()


def change(rng, value):
    """Replace, drop or add one field somewhere in *value*."""
    while isinstance(value, dict) and value:
        name = rng.choice(sorted(value))
        if isinstance(value[name], dict) and rng.random() < 0.8:
            value = value[name]
            continue
        match rng.randrange(4):
            case 0:
                del value[name]
            case 1:
                value[rng.choice(["update", "children", "id", "eta", "expires", "timelimit", "compression", "x"])] = deepcopy(
                    rng.choice(VALUES)
                )
            case _:
                value[name] = deepcopy(rng.choice(VALUES))
        return


def test_thousands_of_mutations_of_real_messages_raise_nothing_but_the_documented_errors(app):
    rng, seeds, fates = random.Random(20260), fixtures(), set()
    for number in range(MUTATIONS):
        raw = mutated(rng, rng.choice(seeds))
        try:
            with suppress(DecodeError, ContentDisallowed, InvalidTaskError, NotRegistered):
                glance(raw, limit=corpus.LIMIT)  # a child gets nothing else
                open_request(app, Job(1, 1, raw), node="w1", accept=app.accepted_content(), limit=corpus.LIMIT)
            attempts, _ = marks(mark(raw, attempts=1, suspect=True))
            assert attempts in {0, 1}
            fates.add(fate_of(app, raw)[0])
        except Exception as exc:
            raise AssertionError(f"mutation {number}: {raw!r:.2000}") from exc
    assert fates == {corpus.DEAD, corpus.PARKED, corpus.RUNS, corpus.REVOKED, corpus.DELAYED}
