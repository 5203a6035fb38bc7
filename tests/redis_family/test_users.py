"""Users with no more rights than the page about Redis says: they suffice, and none is too many."""

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("redis")

from msgspec.structs import replace
from tests.faults.conftest import faults_on
from tests.processes import wait_for
from tests.redis_family import processes

from umbel.backend import Arrival, Record
from umbel.broker import Verb
from umbel.drivers import open_backend, open_broker, open_leases, open_schedule_store
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured
from umbel.schedule_store import Row, State
from umbel.testing.conformance.base import item, settlement

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]

PAGE = Path(__file__).parents[2] / "docs/how-to/use-redis.md"
SECRET = "p/a:s@s#w%rd"
ROLES = ("producer", "worker", "inspector")
# What a connection begins with, and what tests ask.
NO_RIGHTS_NEEDED = {"auth", "hello", "client|setinfo", "config|resetstat", "script|flush", "client", "config", "script"}


def rules(role: str) -> list[str]:
    found = re.search(rf"^ACL SETUSER {role} on >password (.*)$", PAGE.read_text(), re.MULTILINE)
    assert found, f"{PAGE} has no line for {role}"
    return found[1].split()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with processes.running(tmp_path_factory.mktemp("users")) as server:
        for role in ROLES:
            server.ask("ACL", "SETUSER", role, "reset", "on", f">{SECRET}", *rules(role))
        yield server


@pytest.fixture(autouse=True)
def empty(server):
    server.ask("FLUSHALL")


def url(server, role: str) -> str:
    return f"redis://{role}:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/0"


@pytest.fixture
def opened(server):
    with contextlib.ExitStack() as stack:

        def opened(role):
            address = url(server, role)
            broker, backend = open_broker(address, options={"replicas": 0}), open_backend(address)
            for each in (broker, backend):
                stack.enter_context(contextlib.closing(each))
            assert broker.settles_with(backend)
            return broker, backend

        yield opened


def produces(broker, backend):
    broker.open()
    broker.publish([item("celery", "one")])
    broker.publish([item("celery", f"m{n}", priority=n) for n in range(10)])
    broker.publish([item("celery", "later", due=time.time() + 60), item("celery", "due", due=time.time() - 60)])
    broker.publish([replace(item("celery", "keyed"), once="key", once_for=60)])
    broker.revoke(["m1"], ttl=60)
    broker.revoke(["m2"], ttl=0.001, signal="SIGTERM")
    forgotten_after = time.time() + 0.01
    wait_for(lambda: time.time() > forgotten_after)
    broker.revoke(["m3"], ttl=60)
    backend.get(["one"])
    with contextlib.closing(backend.watch()) as watch:
        watch.listen(["one"])
        watch.wait(0.01)
        watch.drop(["one"])
    backend.forget(["one"])
    backend.begin_flow("flow", {0: b"node"}, {0: (2, b"join"), 1: (0, b"")}, expires=60)
    backend.begin_flow("kept", {0: b"node"}, {}, expires=None)
    backend.begin_flow("kept", {}, {0: (0, b"")}, expires=None)
    backend.begin_flow("old", {0: b"node"}, {0: (1, b""), 1: (0, b"")}, expires=60)
    looks(backend)
    backend.save_group("group", b"{}", expires=60)
    backend.saved_group("group")
    backend.delete_group("group")
    backend.forget_flows(["old", "kept"])


def looks(backend):
    assert backend.nodes([("flow", 0)]) == [b"node"]
    assert backend.join_data([("flow", 0)]) == [b"join"]
    assert sorted(backend.progress("flow")) == [0, 1]


def follows(backend):
    assert backend.grow("flow", 0, 1, key="more") == 2
    parts = [Arrival(flow="flow", join=0, position=position, id="a", value=b"1") for position in range(3)]
    (*_, over) = backend.arrive(parts, expires=60)
    assert backend.arrived("flow", 0) == [b"1"] * 3
    found = backend.overs(older=0)
    assert over in found
    backend.begin_flow("other", {}, {0: (2, b""), 1: (2, b"")}, expires=60)
    backend.arrive([Arrival(flow="other", join=join, position=0, id="a", value=b"1") for join in (0, 1)], expires=60)
    (failed,) = backend.arrive([Arrival(flow="other", join=0, position=1, id="a", value=None)], expires=60)
    backend.arrive([Arrival(flow="other", join=1, position=1, id="a", value=b"1")], expires=None)
    backend.sent([*found, failed])
    backend.begin_flow("other", {}, {2: (0, b"")}, expires=60)
    assert backend.bind([("one", "copy")], expires=60) == [True]


def works(broker, backend):
    broker.join("early", ["celery"], lease=60)
    assert broker.fetch("celery", 1, owner="early", seq=1) == []
    produces(broker, backend)
    for owner in ("dead", "w"):
        broker.join(owner, ["celery"], lease=60)
    broker.renew("w", ["celery"], lease=60)
    lost = broker.fetch("celery", 2, owner="dead", seq=1)
    broker.mark_started(lost[0])
    assert broker.promote("celery")
    broker.wait("w", ["celery"], 0.01)
    held = broker.fetch("celery", 8, owner="w", seq=1)
    record = Record(id="one", state="SUCCESS", meta=b"{}", expires=60)
    moves = [settlement(each, verb, reason="t", replacement=item("celery", "again")) for each, verb in zip(held, Verb, strict=False)]
    moves = [replace(each, tally="a") for each in moves]
    ended = replace(settlement(held[6]), records=[record], follow_ups=[item("celery", "next")])
    assert all(broker.settle([*moves, ended, settlement(held[7], Verb.BURY, reason="t")]))
    assert broker.parked_for("celery", ["t"]) == ["t"]
    broker.fetch("celery", 1, owner="w", seq=2, parked=["t"])
    broker.revoked_since(0)
    broker.revoked_since(0)
    backend.store([record])
    follows(backend)


def recovers(server, broker):
    server.ask("ZADD", "{celery}.owners", 1, "dead")
    assert len(broker.recover("celery", owner="w", limit=9).deliveries) == 2
    broker.leave("w", ["celery"])


def inspects(broker, backend):
    broker.depth(["celery"])
    dead, other = broker.dead("celery")
    broker.dead("celery", id=dead.id)
    broker.parked("celery")
    broker.parked("celery", id="x")
    broker.tallies("celery", since=time.time() - 600)
    broker.parked_for("celery", ["t"])
    assert broker.requeue([dead]) == 1
    assert broker.discard([dead, other]) == 1
    broker.purge("celery")
    backend.get(["one"])
    looks(backend)
    broker.revoked_since(0)


def used(server) -> set[str]:
    with server.client() as client:
        return {name.removeprefix("cmdstat_") for name in client.info("commandstats")}


@pytest.fixture
def at_work(server, opened):
    """Somebody waits for messages, so that who brings some rings a bell."""
    broker, _ = opened("worker")
    broker.join("idle", ["celery"], lease=60)
    assert broker.fetch("celery", 1, owner="idle", seq=1) == []
    return broker


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_it_has_to_and_is_allowed_no_command_for_nothing(server, opened, at_work, role):
    broker, backend = opened(role)
    if role == "inspector":
        works(*opened("worker"))
        assert at_work.fetch("celery", 99, owner="idle", seq=2)
        assert at_work.fetch("celery", 1, owner="idle", seq=3) == []
    server.ask("CONFIG RESETSTAT")
    server.ask("SCRIPT FLUSH")
    {"producer": produces, "worker": works, "inspector": inspects}[role](broker, backend)
    if role == "worker":
        recovers(server, broker)
    needed = used(server) - NO_RIGHTS_NEEDED
    allowed = {rule[1:] for rule in rules(role) if rule.startswith("+")}
    assert needed == allowed, " ".join(f"+{name}" for name in sorted(needed))


def test_a_worker_with_the_keys_of_schedules_may_be_the_scheduler(server):
    extra = re.search(r"may be the scheduler: `(~[^`]+)`", PAGE.read_text())
    assert extra
    server.ask("ACL", "SETUSER", "scheduler", "reset", "on", f">{SECRET}", *rules("worker"), *extra[1].split())
    with contextlib.closing(open_leases(url(server, "scheduler"))) as leases:
        term = leases.acquire("beat", "me", ttl=60)
        assert leases.renew(term, ttl=60)
        with contextlib.closing(open_schedule_store(url(server, "scheduler"))) as store:
            assert store.now() > 0
            store.put([Row("a", b"{}"), Row("b", b"{}")])
            assert store.advance([State("a", 60.0)], fence=term.fence)
            assert store.remove(["b"]) == 1
            assert store.changed_since(0).rows == [Row("a", b"{}")]
            assert store.states(["a"]) == {"a": State("a", 60.0)}
        assert leases.release(term)


def test_a_command_that_is_not_allowed_is_named_with_where_to_read_on(opened):
    broker, _ = opened("producer")
    with pytest.raises(BrokerUnavailable, match=r"'zrevrangebyscore'|can't run this command") as caught:
        broker.dead("celery")
    assert "docs/how-to/use-redis.md, under Users" in str(caught.value)
    assert caught.value.refused
    with pytest.raises(BrokerUnavailable, match=r"(?i)permissions|can't access.*keys"):
        broker.publish([item("another", "a"), item("another", "b")])
    assert SECRET not in str(caught.value)


def test_a_wrong_password_is_said_and_not_shown(server):
    with contextlib.closing(open_broker(f"redis://worker:wrong-secret@127.0.0.1:{server.port}")) as broker:
        with pytest.raises(BrokerUnavailable, match=r"(?i)invalid username-password|WRONGPASS") as caught:
            broker.open()
        assert "wrong-secret" not in str(caught.value)


def test_a_user_given_as_options_needs_no_escapes(server):
    with contextlib.closing(
        open_broker(f"redis://127.0.0.1:{server.port}", options={"username": "producer", "password": SECRET})
    ) as broker:
        broker.publish([item("celery", "a")])


def test_a_producer_and_a_worker_with_their_rights_alone_run_tasks_of_all_kinds(server, tmp_path):
    making, working = (faults_on(url(server, role), url(server, role), tmp_path) for role in ("producer", "worker"))
    with working.worker("-c", "2") as worker:
        said = making.script(
            "from faults_app import *\n"
            "from ledger_app import flaky, raises\n"
            "print(sum(r.get(timeout=60) for r in [work.delay(n) for n in range(50)]))\n"
            "print(flaky.delay(1, 2).get(timeout=60), work.apply_async((2,), countdown=0.2, priority=9).get(timeout=60))\n"
            "r = raises.delay('x'); r.get(timeout=60, propagate=False); print(r.state)\n"
            "late = work.apply_async((3,), countdown=600); late.revoke(); late.forget()\n"
        )
        worker.send(15)
        assert worker.exit_code() == 0, worker.tail()
    assert said.split() == [str(sum(range(50))), "2", "2", "FAILURE"]
    assert "refused" not in worker.log()
    assert "NOPERM" not in worker.log()


class Rotating:
    """Reads user and password from a file, as the agent of a secret store writes it."""

    def get_credentials(self) -> tuple[str, str]:
        user, password = Path(os.environ["ROTATING"]).read_text().split()
        return user, password


@pytest.mark.parametrize("how", ["an object", "in the options", "in the URL"])
def test_a_password_that_changes_is_asked_for_at_each_new_connection(server, tmp_path, monkeypatch, how):
    current = tmp_path / "current"
    monkeypatch.setenv("ROTATING", str(current))
    monkeypatch.setitem(sys.modules, "rotating", sys.modules[__name__])
    address, options = f"redis://127.0.0.1:{server.port}/0", {}
    if how == "in the URL":
        address += "?credential_provider=rotating.Rotating"
    else:
        options["credential_provider"] = Rotating() if how == "an object" else "rotating.Rotating"
    with contextlib.closing(open_broker(address, options=options)) as broker:
        for secret in ("first", "second"):
            server.ask("ACL", "SETUSER", "producer", "resetpass", f">{secret}")
            current.write_text(f"producer {secret}\n")
            broker.publish([item("celery", "a")])
            broker.close()
    server.ask("ACL", "SETUSER", "producer", "resetpass", f">{SECRET}")


def test_a_provider_of_credentials_that_cannot_be_imported_is_named():
    with pytest.raises(ImproperlyConfigured, match=r"'nowhere\.Provider', which cannot be imported"):
        open_broker("redis://127.0.0.1", options={"credential_provider": "nowhere.Provider"})
