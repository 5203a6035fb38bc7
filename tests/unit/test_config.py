import importlib.util
import math
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from umbel.config import SETTINGS, Settings
from umbel.config_values import HIDDEN, censored, checked, from_text
from umbel.exceptions import CeleryWarning, ImproperlyConfigured

ROOT = Path(__file__).parents[2]


def settings(source=None, pre=None, *, environ=None, namespace=None, **callbacks):
    made = Settings(pre, environ=environ or {}, namespace=namespace, **callbacks)
    made.set_source(lambda: source)
    return made


# --- what counts ---


def test_attributes_and_items_are_the_same():
    conf = settings({"task_default_queue": "q"})
    assert conf.task_default_queue == conf["task_default_queue"] == conf.get("task_default_queue") == "q"
    conf["task_default_queue"] = "r"
    assert conf.task_default_queue == "r"
    conf.task_default_queue = "s"
    assert conf["task_default_queue"] == "s"


def test_nothing_is_loaded_before_the_first_read():
    calls = []
    conf = Settings(on_first_read=lambda: calls.append("first"), on_ready=lambda: calls.append("ready"), environ={})
    conf.set_source(lambda: calls.append("load"))
    conf.timezone = "UTC"
    conf.update(task_default_queue="q")
    assert not calls
    assert conf.enable_utc is True
    assert conf.enable_utc is True
    assert calls == ["first", "load", "ready"]


def test_what_was_written_before_the_source_was_read_wins_and_stays():
    conf = settings({"task_default_queue": "source", "timezone": "UTC"}, {"include": ("a",)})
    conf.task_default_queue = "written"
    assert (conf.task_default_queue, conf.timezone, conf.include) == ("written", "UTC", ("a",))
    conf.set_source(lambda: {"task_default_queue": "other", "enable_utc": False})
    assert (conf.task_default_queue, conf.timezone, conf.enable_utc) == ("written", None, False)


def test_added_defaults_count_more_than_the_source_and_the_newest_most():
    conf = settings({"task_default_queue": "source", "timezone": "UTC"})
    conf.add_defaults({"task_default_queue": "older", "task_serializer": "yaml"})
    conf.add_defaults(lambda: {"task_default_queue": "newer"})
    assert (conf.task_default_queue, conf.task_serializer, conf.timezone) == ("newer", "yaml", "UTC")
    conf.add_defaults({"task_default_queue": "newest"})
    assert conf.task_default_queue == "newest"
    assert len(conf.defaults) == 5


def test_the_environment_moves_broker_and_results_whatever_the_program_says():
    conf = settings(pre={"broker_url": "memory://a"}, environ={"CELERY_BROKER_URL": "redis://b", "CELERY_RESULT_BACKEND": "redis://c"})
    assert conf.broker_url == conf["broker_url"] == conf.broker_read_url == "redis://b"
    assert conf.result_backend == "redis://c"
    conf = settings(environ={"CELERY_BROKER_URL": "redis://b", "UMBEL_BROKER_URL": "redis://ours"})
    assert conf.broker_url == "redis://ours"


def test_any_setting_may_come_from_the_environment_as_text_unless_the_program_wrote_it():
    conf = settings({"worker_concurrency": 2}, environ={"UMBEL_WORKER_CONCURRENCY": "5", "UMBEL_TASK_ALWAYS_EAGER": "true"})
    assert (conf.worker_concurrency, conf.task_always_eager) == (5, True)
    conf.worker_concurrency = 7
    assert conf.worker_concurrency == 7


def test_a_failed_import_comes_out_at_each_read_until_it_works():
    def load():
        if not works:
            raise ModuleNotFoundError("no such module")
        return {"timezone": "UTC"}

    works = []
    conf = Settings(environ={})
    conf.set_source(load)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            _ = conf.timezone
    works.append(True)
    assert conf.timezone == "UTC"


def test_callbacks_may_read_and_write_while_the_source_is_loaded():
    conf = settings({"task_default_queue": "source"}, on_first_read=lambda: conf.update(timezone="UTC", include=[conf.task_default_queue]))
    assert (conf.include, conf.timezone, conf.task_default_queue) == (["celery"], "UTC", "source")


def test_threads_that_read_first_together_load_once():
    loads = []
    conf = Settings(environ={})
    conf.set_source(lambda: loads.append(1))
    threads = [threading.Thread(target=lambda: conf.timezone) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert loads == [1]


# --- live ---


def test_a_change_in_the_source_is_seen_after_invalidate():
    source = SimpleNamespace(CELERY_TASK_ALWAYS_EAGER=False)
    conf = settings(source, namespace="CELERY")
    assert conf.task_always_eager is False
    before = conf.generation
    source.CELERY_TASK_ALWAYS_EAGER = True
    conf.invalidate()
    assert conf.task_always_eager is True
    assert conf.generation > before


def test_each_write_is_a_new_generation_and_a_read_is_none():
    conf = settings()
    _ = conf.timezone
    seen = [conf.generation]
    _ = conf.task_serializer
    assert conf.generation == seen[0]
    conf.timezone = "UTC"
    assert conf.generation not in seen
    for change in (lambda: conf.pop("timezone"), lambda: conf.add_defaults({}), lambda: conf.set_source(dict)):
        seen.append(conf.generation)
        change()
        assert conf.generation not in seen


def test_a_default_dictionary_that_an_app_fills_is_its_own():
    one, other = settings(), settings()
    one.beat_schedule["a"] = {}
    one.timezone = "UTC"
    assert (list(one.beat_schedule), other.beat_schedule, SETTINGS["beat_schedule"].default) == (["a"], {}, {})


def test_a_snapshot_does_not_change_and_a_later_write_warns_once():
    conf = settings({"of_a_third_party": 1}, {"task_default_queue": "q"})
    frozen = conf.snapshot()
    with pytest.warns(CeleryWarning, match="worker keeps the old one") as caught:
        conf.update({"task_default_queue": "s", "enable_utc": False})
    assert len(caught) == 1
    assert (conf.task_default_queue, frozen.task_default_queue, frozen["task_default_queue"], frozen.of_a_third_party) == ("s", "q", "q", 1)
    assert frozen.without_defaults() == {"task_default_queue": "q", "of_a_third_party": 1}
    with pytest.raises(TypeError, match="fixed"):
        frozen.timezone = "UTC"
    with pytest.raises(AttributeError):
        _ = frozen.absent


def test_a_copy_goes_its_own_way():
    conf = settings({"timezone": "UTC"}, {"task_default_queue": "q"})
    twin = conf.copy()
    twin.task_default_queue = "r"
    assert (conf.task_default_queue, twin.task_default_queue, twin.timezone) == ("q", "r", "UTC")


# --- names ---


def test_unknown_settings_are_kept_and_absent_ones_are_missing():
    conf = settings(SimpleNamespace(CELERY_DB_REUSE_MAX=3), namespace="CELERY")
    assert conf["CELERY_DB_REUSE_MAX"] == conf.db_reuse_max == 3
    assert "db_reuse_max" in conf
    assert "absent" not in conf
    assert conf.get("absent", 1) == 1
    with pytest.raises(AttributeError):
        _ = conf.absent
    with pytest.raises(KeyError):
        conf["absent"]


def test_a_namespaced_or_old_name_may_be_written_and_read():
    conf = settings(namespace="CELERY")
    conf.CELERY_TIMEZONE = "UTC"
    conf.BROKER_URL = "memory://"
    assert (conf.timezone, conf.CELERY_TIMEZONE, conf.broker_url, conf.BROKER_URL) == ("UTC", "UTC", "memory://", "memory://")
    assert dict(conf.changes) == {"timezone": "UTC", "broker_url": "memory://"}


def test_names_written_before_the_namespace_was_known_count_too():
    conf = Settings({"CELERY_TIMEZONE": "UTC"}, environ={})
    conf.set_source(dict, namespace="CELERY")
    assert conf.timezone == "UTC"


def test_a_misspelt_setting_warns_once_with_what_was_meant():
    conf = settings({"task_allways_eager": True})
    with pytest.warns(CeleryWarning, match="Was task_always_eager meant") as caught:
        conf.load()
    conf.task_allways_eager = True
    assert len(caught) == 1
    assert conf.task_always_eager is False


def test_mixed_old_and_new_names_are_refused_at_the_first_read_but_not_under_a_namespace():
    with pytest.raises(ImproperlyConfigured, match="mixes"):
        _ = settings({"BROKER_URL": "memory://", "timezone": "UTC"}).timezone
    assert settings({"BROKER_URL": "memory://", "CELERY_TIMEZONE": "UTC"}, namespace="CELERY").broker_url == "memory://"


def test_what_is_unset_falls_back_to_what_it_goes_with():
    django = SimpleNamespace(TIME_ZONE="Europe/Berlin", CELERY_TASK_DEFAULT_QUEUE="q", CELERY_BROKER_URL="memory://")
    conf = settings(django, namespace="CELERY")
    assert (conf.timezone, conf.task_default_exchange, conf.task_default_routing_key) == ("Europe/Berlin", "q", "q")
    assert (conf.broker_read_url, conf.broker_write_url) == ("memory://", "memory://")
    assert settings().broker_url is None


def test_taking_back_what_was_written_shows_what_was_below():
    conf = settings({"timezone": "UTC"}, {"timezone": "Asia/Tokyo"})
    assert conf.value_set_for("timezone")
    assert conf.pop("timezone") == "Asia/Tokyo"
    assert conf.timezone == "UTC"
    with pytest.raises(AttributeError, match="not set by the program"):
        del conf.timezone


# --- values ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_always_eager", "false"),
        ("worker_lease", "10"),
        ("worker_lease", True),
        ("task_max_deliveries", 2.5),
        ("task_delay_for", "kombu"),
        ("task_protocol", 1),
        ("broker_transport_options", None),
        ("accept_content", "json"),
        ("timezone", 3),
    ],
)
def test_a_wrong_type_is_refused_with_name_value_and_what_is_expected(name, value):
    with pytest.raises(ImproperlyConfigured) as told:
        settings(pre={name: value})
    assert name in str(told.value)
    assert repr(value) in str(told.value)
    conf = settings({name: value})
    with pytest.raises(ImproperlyConfigured, match="It must be: "):
        conf[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worker_max_tasks_per_child", -1),
        ("worker_max_memory_per_child", -200_000),
        ("worker_watchdog_timeout", -1),
        ("worker_soft_shutdown_timeout", -0.5),
        ("worker_lease", float("nan")),
        ("task_time_limit", float("nan")),
    ],
)
def test_an_amount_below_nothing_is_refused_with_name_value_and_unit(name, value):
    with pytest.raises(ImproperlyConfigured, match=f"{name} is {value!r}. It must be 0 or more "):
        settings(pre={name: value})


def test_an_amount_may_be_nothing_or_without_an_end_and_below_nothing_where_that_means_something():
    for name, value in (("worker_watchdog_timeout", 0.0), ("task_time_limit", float("inf")), ("result_cache_max", -1)):
        assert settings({name: value})[name] == value


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("worker_lease", 3, 3.0),
        ("enable_utc", 1, True),
        ("result_expires", timedelta(hours=1), timedelta(hours=1)),
        ("result_backend_max_retries", math.inf, math.inf),
        ("task_routes", len, len),
        ("worker_concurrency", "auto", "auto"),
        ("task_default_delivery_mode", "persistent", "persistent"),
        ("broker_url", ["memory://"], ["memory://"]),
    ],
)
def test_values_that_users_write_are_kept(name, value, kept):
    found = checked(SETTINGS[name], value)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("task_always_eager", "True", True),
        ("task_always_eager", "off", False),
        ("task_max_deliveries", "5", 5),
        ("worker_concurrency", "auto", "auto"),
        ("worker_concurrency", "", None),
        ("result_expires", "60", 60.0),
        ("accept_content", "json, yaml", ["json", "yaml"]),
        ("accept_content", '["json"]', ["json"]),
        ("broker_transport_options", '{"a": 1}', {"a": 1}),
        ("broker_url", "redis://a:6379/0", "redis://a:6379/0"),
        ("task_protocol", "2", 2),
        ("task_delay_for", "celery", "celery"),
    ],
)
def test_text_is_read_as_the_type_of_the_setting(name, text, value):
    found = from_text(SETTINGS[name], text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [("task_always_eager", "maybe"), ("task_max_deliveries", "x"), ("broker_transport_options", "[1]")],
)
def test_text_that_means_nothing_is_refused(name, text):
    with pytest.raises(ImproperlyConfigured, match=name):
        from_text(SETTINGS[name], text)


@pytest.mark.parametrize("default", list(SETTINGS.values()), ids=lambda setting: setting.name)
def test_each_default_has_its_own_type(default):
    assert checked(default, default.default) == default.default


# --- showing ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_url", "redis://user:hunter2@host:6379/0"),
        ("broker_url", "redis://:hun/ter2@x@host/0;redis://:hunter2@other"),
        ("broker_url", ["redis://:hunter2@host"]),
        ("broker_url", "redis://host?password=hunter2&timeout=3"),
        ("broker_password", "hunter2"),
        ("s3_secret_access_key", "hunter2"),
        ("security_key_password", b"hunter2"),
        ("of_a_third_party_token", "hunter2"),
        ("broker_transport_options", {"sentinel_kwargs": {"password": "hunter2"}}),
    ],
)
def test_secrets_are_not_shown(name, value):
    conf = settings(pre={name: value})
    shown = conf.humanize()
    assert "hunter2" not in shown
    assert "ter2" not in shown
    assert HIDDEN in shown
    assert conf.table(censored=False) == {name: value}
    assert "hunter2" not in repr(conf)


def test_what_is_no_secret_is_shown():
    assert censored("task_default_routing_key", "orders") == "orders"
    assert censored("broker_url", "redis://host:6379/0") == "redis://host:6379/0"
    assert censored("broker_url", "redis://a?timeout=3;redis://b") == "redis://a?timeout=3;redis://b"


def test_a_secret_is_not_shown_in_an_error():
    with pytest.raises(ImproperlyConfigured) as told:
        settings(pre={"broker_url": {"url": "redis://:hunter2@host"}})
    assert "hunter2" not in str(told.value)


def test_the_table_has_what_was_set_and_with_defaults_everything():
    conf = settings({"timezone": "UTC", "custom": 1}, {"task_default_queue": "q"}, environ={"UMBEL_WORKER_LEASE": "5"})
    assert conf.table() == conf.without_defaults() == {"task_default_queue": "q", "worker_lease": 5.0, "timezone": "UTC", "custom": 1}
    assert set(conf.table(with_defaults=True)) == {*SETTINGS, "custom"} == set(conf)


def test_settings_without_effect_or_not_built_are_listed_when_set_to_something():
    conf = settings({"broker_pool_limit": 5, "broker_heartbeat": 120, "worker_autoscaler": "x:Y", "timezone": "UTC"})
    assert conf.set_with("accepted") == ["broker_pool_limit"]
    assert conf.set_with("later") == ["worker_autoscaler"]


def test_the_first_value_that_is_set_is_found():
    conf = settings({"task_default_priority": 3})
    assert conf.first("task_compression", "absent", "task_default_priority") == 3
    assert conf.get_by_parts("task", "default", "priority") == 3


# --- the table ---


def test_all_of_celerys_settings_are_known():
    assert sum(setting.legacy is not None for setting in SETTINGS.values()) == 207


def test_each_setting_says_what_it_is_for():
    for setting in SETTINGS.values():
        assert setting.sentence.endswith("."), setting.name


def test_the_reference_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("settings_reference", ROOT / "scripts" / "settings_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "Run: python scripts/settings_reference.py"
