"""What a worker of a Django project does before it takes its first task."""

import subprocess
import sys

WORKER = ("umbel", "-A", "mysite", "worker", "-l", "INFO", "-P", "solo")


def test_a_check_that_fails_stops_the_worker(sqlite_example):
    with sqlite_example.run(*WORKER, DJANGO_SETTINGS_MODULE="probe_settings", PROBE_COMPLAINS="1") as worker:
        assert worker.exit_code(30) != 0
        log = worker.log()
    assert "probe.E001" in log
    assert "the probe is not content" in log
    assert " ready." not in log


def test_checks_may_be_skipped(sqlite_example):
    with sqlite_example.worker("-P", "solo", "--skip-checks", DJANGO_SETTINGS_MODULE="probe_settings", PROBE_COMPLAINS="1") as worker:
        assert " ready." in worker.log()


def test_a_project_that_does_not_exist_ends_the_worker_with_one_sentence(sqlite_example):
    with sqlite_example.run("umbel", "-A", "nothere", "worker") as worker:
        assert worker.exit_code(30) != 0
        log = worker.log()
    assert "nothere" in log
    assert "Traceback" not in log


def test_importing_tasks_does_not_need_the_app_registry(sqlite_example):
    # As autodiscovery with force=True does: before django.setup().
    code = "from umbel import shared_task\n@shared_task\ndef f(): pass\nfrom django.apps import apps\nassert not apps.ready\nprint(f.name)"
    env = {**sqlite_example.env, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    done = subprocess.run([sys.executable, "-c", code], cwd=sqlite_example.folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
