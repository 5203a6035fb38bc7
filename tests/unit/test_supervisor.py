import os

import pytest

from umbel.cli.launch import node_names
from umbel.supervisor import pidfile
from umbel.supervisor.link import VARIABLE, Link, Role, make_line
from umbel.supervisor.slot import ordinal, pause_after


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (None, ["celery1@box", "celery2@box"]),
        ("w@box", ["w1@box", "w2@box"]),
        ("w@%h", ["w1@box", "w2@box"]),
        ("w%i-mail@other", ["w1-mail@other", "w2-mail@other"]),
        ("w%I@%h", ["w-1@box", "w-2@box"]),
        ("w@node%i", ["w@node1", "w@node2"]),
        ("other", ["celery1@other", "celery2@other"]),
    ],
)
def test_the_workers_of_one_supervisor_have_different_names_that_stay_the_same(monkeypatch, template, names):
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert node_names(template, 2) == names == node_names(template, 3)[:2]


def test_a_percent_sign_that_is_written_twice_is_no_place_for_the_number(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert node_names("50%%i@h", 2) == ["50%i1@h", "50%i2@h"]


def test_the_first_quick_end_costs_no_pause_and_no_pause_is_longer_than_a_minute():
    assert [pause_after(ends) for ends in (0, 1, 2, 3, 4, 7, 8, 9, 10_000)] == [0, 0, 1, 2, 4, 32, 60, 60, 60]


def test_numbers_are_said_as_in_english():
    assert " ".join(map(ordinal, (2, 3, 4, 11, 12, 13, 21, 102, 111))) == "2nd 3rd 4th 11th 12th 13th 21st 102nd 111th"


def test_a_worker_finds_its_role_once_and_programs_of_its_tasks_do_not(monkeypatch):
    role = Role(node="w1@h", index=1, quiet=True, descriptor=7)
    monkeypatch.setenv(VARIABLE, role.put_into({})[VARIABLE])
    assert Role.take() == role
    assert VARIABLE not in os.environ
    assert Role.take() is None


def test_a_line_tells_that_the_worker_is_ready_and_that_the_supervisor_is_gone():
    ours, theirs = make_line()
    link = Link(theirs.detach())
    assert not link.is_cut()
    link.say_ready()
    assert ours.recv(64) == b"ready"
    assert not os.get_inheritable(link.socket.fileno())
    ours.close()
    assert link.is_cut()
    link.say_ready()
    link.socket.close()


def test_a_file_that_another_one_has_just_written_is_not_taken_for_the_stale_one_before_it(tmp_path, monkeypatch):
    path = tmp_path / "umbel.pid"
    path.write_text("999999999\n")
    there = pidfile.is_there

    def another_comes_first(pid):
        if pid == 999999999:
            path.unlink()
            path.write_text(f"{os.getppid()}\n")
        return there(pid)

    monkeypatch.setattr(pidfile, "is_there", another_comes_first)
    with pytest.raises(pidfile.PidFileTakenError, match=f"as process {os.getppid()}"):
        pidfile.PidFile(str(path)).take()
    assert path.read_text() == f"{os.getppid()}\n"
    assert list(tmp_path.iterdir()) == [path]
