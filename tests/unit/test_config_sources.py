import sys
from types import SimpleNamespace

import pytest

from umbel.config_sources import MISSING, Names, Source, load, module_from_envvar, near_miss, refuse_mixed_styles
from umbel.exceptions import ImproperlyConfigured


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a configuration package, as the working directory."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "umbel_test_project"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "config.py").write_text("task_default_queue = 'from_module'\nclass Production:\n    task_default_queue = 'from_class'\n")
    (package / "broken.py").write_text("import umbel_no_such_module\n")
    (package / "wrong.py").write_text("import sys\nsys.no_such_attribute\n")
    yield
    for name in [name for name in sys.modules if name.startswith("umbel_test_project")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        ("umbel_test_project.config", "from_module"),
        ("umbel_test_project.config:Production", "from_class"),
        ("umbel_test_project.config.Production", "from_class"),
    ],
)
def test_a_source_is_found_by_its_name_in_the_working_directory(project, name, queue):
    before = list(sys.path)
    assert load(name).task_default_queue == queue
    assert sys.path == before


def test_an_object_is_its_own_source():
    source = {"task_default_queue": "q"}
    assert load(source) is source


@pytest.mark.parametrize("name", ["umbel_test_project.absent", "umbel_test_project.config:Absent", "umbel_test_project.wrong"])
def test_a_source_that_is_not_there_is_a_missing_module_or_silently_none(project, name):
    with pytest.raises(ModuleNotFoundError):
        load(name)
    assert load(name, silent=True) is None


def test_a_failure_inside_the_configuration_names_the_module_that_is_missing(project):
    with pytest.raises(ModuleNotFoundError, match="umbel_no_such_module"):
        load("umbel_test_project.broken")


def test_an_environment_variable_names_the_module():
    assert module_from_envvar("CONFIG", environ={"CONFIG": "proj.config"}) == "proj.config"
    assert module_from_envvar("CONFIG", silent=True, environ={}) is None
    with pytest.raises(ImproperlyConfigured, match="'CONFIG' is not set"):
        module_from_envvar("CONFIG", environ={})


@pytest.mark.parametrize(
    ("namespace", "key", "name"),
    [
        ("CELERY", "CELERY_TASK_ACKS_LATE", "task_acks_late"),
        ("CELERY", "task_acks_late", "task_acks_late"),
        ("CELERY", "CELERY_ACKS_LATE", "task_acks_late"),
        ("CELERY", "CELERYBEAT_SCHEDULE", "beat_schedule"),
        ("CELERY", "UMBEL_WORKER_LEASE", "worker_lease"),
        ("CELERY", "UMBEL_STATE_URL", "umbel_state_url"),
        ("CELERY", "CELERY_OF_A_THIRD_PARTY", "of_a_third_party"),
        ("celery", "celery_task_acks_late", "task_acks_late"),
        (None, "BROKER_URL", "broker_url"),
        (None, "CELERY_TASK_ACKS_LATE", "CELERY_TASK_ACKS_LATE"),
    ],
)
def test_each_spelling_leads_to_one_name(namespace, key, name):
    assert Names(namespace).canonical(key) == name


def test_the_namespaced_spelling_counts_before_the_bare_and_the_old_one():
    held = {"CELERY_TASK_ACKS_LATE": 1, "task_acks_late": 2, "CELERY_ACKS_LATE": 3}
    source = Source(held, Names("CELERY"))
    found = []
    for key in list(held):
        found.append(source.get("task_acks_late"))
        del held[key]
    assert found == [1, 2, 3]
    assert source.get("task_acks_late") is MISSING


def test_the_attributes_of_an_object_that_are_no_settings_are_left_out():
    held = SimpleNamespace(CELERY_TIMEZONE="UTC", CELERY_OTHER=1, SECRET_KEY="x", _private=1)
    assert set(Source(held, Names("CELERY")).names()) == {"timezone", "other"}


def test_a_module_imported_by_a_configuration_is_no_setting():
    held = SimpleNamespace(sys=sys, function=lambda: 1, custom=1, task_routes=lambda: None)
    assert set(Source(held, Names()).names()) == {"custom", "task_routes"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("task_allways_eager", "task_always_eager"),
        ("task_ack_late", "task_acks_late"),
        ("worker_logfile", None),
        ("result_backend_thread_safe", None),
        ("redbeat_redis_url", None),
        ("task_always_eager", None),
        ("SECRET_KEY", None),
    ],
)
def test_a_misspelt_name_is_told_from_a_name_of_others(name, meant):
    assert near_miss(name) == meant


def test_old_and_new_names_do_not_mix():
    with pytest.raises(ImproperlyConfigured, match="BROKER_URL -> broker_url"):
        refuse_mixed_styles(iter(["BROKER_URL", "task_acks_late", "timezone"]))
    with pytest.raises(ImproperlyConfigured, match="timezone -> CELERY_TIMEZONE"):
        refuse_mixed_styles(iter(["BROKER_URL", "CELERY_ACKS_LATE", "timezone"]))


def test_both_spellings_of_one_setting_are_no_mixture():
    refuse_mixed_styles(iter(["BROKER_URL", "broker_url", "timezone"]))
    refuse_mixed_styles(iter(["BROKER_URL", "CELERY_ACKS_LATE"]))
    refuse_mixed_styles(iter(["worker_lease", "BROKER_URL"]))
