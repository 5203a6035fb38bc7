"""What stands behind -A, and the app that it leads to."""

import pytest

APP = "from umbel import Celery\n"


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        ("proj", {"proj": "app = Celery('it')"}),
        ("proj", {"proj": "celery = Celery('it')"}),
        ("proj", {"proj": "umbel = Celery('it')"}),
        ("proj", {"proj": "whatever = Celery('it')"}),
        ("proj:worker_app", {"proj": "app = Celery('other'); worker_app = Celery('it')"}),
        ("proj.worker_app", {"proj": "app = Celery('other'); worker_app = Celery('it')"}),
        ("proj:holder.app", {"proj": "class holder: app = Celery('it')"}),
        ("pkg", {"pkg____init__": "app = Celery('it')", "pkg__celery": "app = Celery('other')"}),
        ("pkg", {"pkg____init__": "", "pkg__celery": "app = Celery('it')"}),
        ("pkg", {"pkg____init__": "", "pkg__umbel": "app = Celery('it')"}),
        ("pkg", {"pkg____init__": "", "pkg__celery": "celery_app = Celery('it')"}),
        ("pkg", {"pkg____init__": "from pkg.celery import app as celery_app", "pkg__celery": "app = Celery('it')"}),
        ("pkg", {"pkg____init__": "made = Celery('it')"}),
        ("pkg.celery_app", {"pkg____init__": "", "pkg__celery_app": "app = Celery('it')"}),
        ("pkg.celery", {"pkg____init__": "", "pkg__celery": "app = Celery('it')"}),
        ("pkg.celery:app", {"pkg____init__": "", "pkg__celery": "app = Celery('it')"}),
        ("pkg", {"pkg__celery": "app = Celery('it')"}),  # without __init__.py
    ],
)
def test_a_name_leads_to_an_app(folder, asked, files):
    folder.write(**{name: APP + text for name, text in files.items()})
    ran = folder.found(asked)
    assert ran.stdout == "it\n", ran.stderr


def test_an_app_of_another_framework_is_passed_over(folder):
    folder.write(proj=APP + "class Flask: pass\napp = Flask()\ncelery = Celery('it')")
    assert folder.found("proj").stdout == "it\n"


def test_a_project_without_such_a_module_is_one_sentence(folder, one_sentence):
    said = one_sentence(folder.umbel("-A", "nothere", "worker"), 2)
    assert "The module nothere was not found." in said
    assert str(folder.path) in said


@pytest.mark.parametrize("asked", ["proj:nothere", "proj.nothere"])
def test_an_attribute_that_is_not_there_is_named(folder, one_sentence, asked):
    folder.project()
    assert "The module proj has no attribute and no submodule 'nothere'." in one_sentence(folder.umbel("-A", asked, "worker"), 2)


def test_a_module_without_an_app_is_one_sentence(folder, one_sentence):
    folder.write(proj="x = 1")
    said = one_sentence(folder.umbel("-A", "proj", "worker"), 2)
    assert "holds no app" in said
    assert "from umbel import Celery" in said


def test_what_is_not_an_app_is_named(folder, one_sentence):
    folder.write(proj="x = 1")
    assert "leads to a int of builtins, not to an app" in one_sentence(folder.umbel("-A", "proj:x", "worker"), 2)


def test_an_app_of_celery_is_told_what_to_change(folder, one_sentence):
    folder.write(proj="class Celery: pass\nCelery.__module__ = 'celery.app.base'\napp = Celery()")
    assert "change its import to 'from umbel import Celery'" in one_sentence(folder.umbel("-A", "proj", "worker"), 2)


@pytest.mark.parametrize("asked", ["", ":app", "proj:", ".proj"])
def test_a_name_that_is_none_is_explained(folder, asked):
    folder.project()
    ran = folder.found(asked)
    assert "names no module. Write it as 'mysite'" in ran.stderr


@pytest.mark.parametrize("line", ["1 / 0", "import not_installed", "def broken("])
@pytest.mark.parametrize("asked", ["pkg", "pkg.celery", "pkg.celery:app"])
def test_an_import_that_fails_shows_where(folder, asked, line):
    folder.write(pkg____init__="", pkg__celery=line)
    ran = folder.umbel("-A", asked, "worker")
    assert ran.returncode == 2
    assert "Error: The module pkg.celery could not be imported: " in ran.stderr
    assert f'{folder.path}/pkg/celery.py", line 1' in ran.stderr
    assert "importlib" not in ran.stderr
    assert "umbel/cli" not in ran.stderr
