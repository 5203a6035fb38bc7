import sys

import pytest

from umbel.backend import Record
from umbel.drivers import open_backend, open_broker, open_leases, open_schedule_store
from umbel.drivers.memory import MemoryBackend, MemoryBroker
from umbel.exceptions import ImproperlyConfigured, NotSupported
from umbel.schedule_store import Row
from umbel.testing import FakeClock


def test_a_relative_path_starts_at_the_base_folder(tmp_path):
    assert open_broker("sqlite:///queue/umbel.sqlite3", base_dir=tmp_path).path == str(tmp_path / "queue/umbel.sqlite3")
    assert open_backend("sqlite:///r.sqlite3", base_dir=tmp_path).path == str(tmp_path / "r.sqlite3")


def test_a_relative_path_of_sql_results_starts_at_the_base_folder_too(tmp_path):
    backend = open_backend("db+sqlite:///r.sqlite3", base_dir=tmp_path)
    backend.store([Record(id="a", state="SUCCESS", meta=b"{}")])
    backend.close()
    assert (tmp_path / "r.sqlite3").exists()


def test_an_absolute_path_stays(tmp_path):
    assert open_broker(f"sqlite:///{tmp_path}/umbel.sqlite3", base_dir="/elsewhere").path == str(tmp_path / "umbel.sqlite3")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://relative.sqlite3"])
def test_a_url_without_a_file_is_refused_with_the_right_form(url):
    with pytest.raises(ImproperlyConfigured, match="four slashes"):
        open_broker(url)


def test_an_unknown_scheme_names_those_that_are_known_and_no_password():
    with pytest.raises(ImproperlyConfigured, match="No broker driver for 'kafka' in 'kafka://me:") as caught:
        open_broker("kafka://me:secret@host/x")
    assert "secret" not in str(caught.value)
    assert "Known: amqp, amqps, memory, " in str(caught.value)


def test_what_is_no_url_is_refused():
    with pytest.raises(ImproperlyConfigured, match="'localhost' is not a broker URL"):
        open_broker("localhost")


@pytest.mark.parametrize("url", ["django-db", "django-cache", "cache+memcached://x", "mongodb://me:secret@host/x"])
def test_backends_of_celery_say_that_they_are_not_built_yet(url):
    with pytest.raises(NotSupported, match=r"is not built yet\. Known: amqp, amqps, cache\+memory, db\+…, memory, ") as caught:
        open_backend(url)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("umbel.drivers.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'umbel\[redis\]'"):
        open_broker("redis://")


@pytest.mark.parametrize("url", [None, "", "disabled://", "disabled"])
def test_without_a_backend_writes_go_nowhere_and_reads_are_refused(url):
    backend = open_backend(url)
    assert backend.store([Record(id="a", state="SUCCESS", meta=b"{}")]) == [True]
    with pytest.raises(NotImplementedError, match=r"No result backend is configured\."):
        backend.get(["a"])
    with pytest.raises(NotImplementedError):
        backend.watch()


def test_memory_stores_of_one_name_are_one():
    one, same, other = (open_broker(f"memory://{name}", clock=FakeClock()) for name in ("opening-a", "opening-a", "opening-b"))
    assert isinstance(one, MemoryBroker)
    assert one.store is same.store is not other.store
    assert isinstance(open_backend("cache+memory://"), MemoryBackend)
    assert open_broker("memory://").settles_with(open_backend("cache+memory://"))


@pytest.mark.parametrize("url", ["memory://opened", "sqlite:///o.sqlite3"])
def test_leases_and_schedules_are_opened_by_their_url(url, tmp_path):
    clock = FakeClock()
    leases = open_leases(url, base_dir=tmp_path, clock=clock)
    store, other = (open_schedule_store(url, name=name, base_dir=tmp_path, clock=clock) for name in ("one", "two"))
    assert leases.acquire("beat", "me", ttl=60)
    store.put([Row("a", b"{}")])
    assert (store.now(), len(store.changed_since(0).rows), len(other.changed_since(0).rows)) == (clock.now(), 1, 0)
    for each in (leases, store, other):
        each.close()


@pytest.mark.parametrize("open_it", [open_leases, open_schedule_store])
def test_what_keeps_no_leases_or_schedules_says_which_setting_leads_elsewhere(open_it):
    with pytest.raises(NotSupported, match="Set umbel_state_url to a URL of one of: memory, postgres, ") as caught:
        open_it("amqp://me:secret@host//")
    assert "secret" not in str(caught.value)
    with pytest.raises(NotSupported, match="Set broker_url or umbel_state_url to a URL of one of: memory, "):
        open_it("db+postgresql://me:secret@host/x")
    with pytest.raises(ImproperlyConfigured, match=r"No store of (leases|schedules) driver for 'kafka'"):
        open_it("kafka://host")
