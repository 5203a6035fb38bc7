"""The program's words: options, where they may stand, and what it says to wrong ones."""

import sys

import pytest

LATER_OPTIONS = [
    ("--autoscale", "10,3"), ("--autoscale=10",),
]  # fmt: skip


def test_help_is_shown_without_a_command_and_is_no_error(folder):
    plain, asked = folder.umbel(), folder.umbel("--help")
    assert plain.returncode == asked.returncode == 0
    assert plain.stdout == asked.stdout
    for command in ("worker", "call", "result", "purge", "report"):
        assert command in plain.stdout


def test_help_imports_no_driver_and_no_worker(folder):
    code = """if True:
        import sys
        from umbel.cli import main
        main(["--help"], standalone_mode=False)
        heavy = {"asyncio", "django", "redis", "rich", "sqlite3", "umbel.worker"}
        print(sorted(heavy & set(sys.modules)))
        """
    ran = folder.run([sys.executable, "-c", code])  # and not in one that has imported them already
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr


def test_the_version_is_printed(folder):
    ran = folder.umbel("--version")
    assert ran.returncode == 0
    assert ran.stdout.startswith("umbel ")


@pytest.mark.parametrize(("typed", "meant"), [("worke", "worker"), ("reslt", "result"), ("purg", "purge")])
def test_a_command_that_is_not_there_gets_a_suggestion(folder, one_sentence, typed, meant):
    assert one_sentence(folder.umbel(typed), 2).endswith(f"There is no command {typed!r}. Did you mean {meant!r}?")


@pytest.mark.parametrize("command", ["inspect", "status", "events", "shell"])
def test_a_command_of_celery_says_that_it_comes_later(folder, one_sentence, command):
    assert f"The command {command!r} comes with a later version" in one_sentence(folder.umbel("-A", "proj", command), 2)


@pytest.mark.parametrize("words", LATER_OPTIONS, ids=" ".join)
def test_an_option_that_comes_later_says_so(project, one_sentence, words):
    assert "comes with a later version of umbel." in one_sentence(project.umbel("-A", "proj", "worker", *words), 2)


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "custom", "Gevent"])
def test_a_pool_of_celery_is_answered_with_ours(project, one_sentence, pool):
    said = one_sentence(project.umbel("-A", "proj", "worker", "-P", pool), 2)
    assert "-P asyncio" in said
    assert "-P threads" in said


def test_a_pool_that_nobody_has_lists_the_pools(project, one_sentence):
    assert "There are: prefork, processes, threads, solo, asyncio." in one_sentence(
        project.umbel("-A", "proj", "worker", "-P", "spoons"), 2
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-c", "many"), "'many' is neither a number"),
        (("-c", "-1"), "'-1' is neither a number"),
        (("-l", "LOUD"), "'LOUD' is not one of"),
        (("--prefetch-multiplier", "-1"), "-1 is not in the range"),
        (("--nothere",), "No such option"),
        (("--", "nonsense"), "'nonsense' is not a setting. Write it as worker_prefetch_multiplier=1."),
        (("--", "worker_prefetch_multiplier=lots"), "worker_prefetch_multiplier"),
        (("--", "worker_prefetch_multiplier=(int)lots"), "'lots' cannot be read as int"),
        (("--", "worker_prefetch_multiplier=(complex)1"), "there is no type 'complex'"),
    ],
)
def test_a_wrong_value_of_the_worker_is_explained(project, one_sentence, words, said):
    assert said in one_sentence(project.umbel("-A", "proj", "worker", *words), 2)


def test_a_variable_of_the_environment_stands_for_an_option(project, one_sentence):
    assert "'many'" in one_sentence(project.umbel("-A", "proj", "worker", CELERY_WORKER_CONCURRENCY="many"), 2)
    assert "'lots'" in one_sentence(project.umbel("-A", "proj", "worker", UMBEL_WORKER_CONCURRENCY="lots"), 2)


@pytest.mark.parametrize("variable", ["APP", "CELERY_APP", "UMBEL_APP"])
def test_the_app_may_come_from_the_environment(folder, one_sentence, variable):
    assert "The module nothere" in one_sentence(folder.umbel("worker", **{variable: "nothere"}), 2)


def test_global_options_may_stand_behind_the_command(folder, one_sentence):
    assert "The module nothere" in one_sentence(folder.umbel("worker", "-A", "nothere"), 2)
    assert "The module nothere" in one_sentence(folder.umbel("worker", "-A", "nothere", APP="other"), 2)
    assert "The module nothere" in one_sentence(folder.umbel("call", "x", "--app=nothere"), 2)


def test_the_working_folder_may_be_named(folder, tmp_path):
    folder.project()
    folder.path = tmp_path.parent
    ran = folder.umbel("--workdir", str(tmp_path), "-A", "proj", "call", "proj.add", "-a", "[1, 2]")
    assert ran.returncode == 0, ran.stderr
