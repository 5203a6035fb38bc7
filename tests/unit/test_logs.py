import io
import logging
import os
import re
import sys
import threading

import pytest

from umbel import logs, signals
from umbel.utils.log import get_task_logger

NAMES = ("", "celery", "celery.task", "celery.redirected")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """Puts back the loggers, streams and environment of the test run."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    streams, environ = (sys.stdout, sys.stderr), dict(os.environ)
    yield
    sys.stdout, sys.stderr = streams
    logging.captureWarnings(False)
    os.environ.clear()
    os.environ.update(environ)
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def set_up(stream=None, **options):
    stream = stream or io.StringIO()
    options = {"level": "INFO", "redirect_stdouts": False, **options}
    assert logs.setup_logging(logfile=stream, **options)
    return stream


def test_a_line_has_the_form_that_celery_gives_it():
    stream = set_up()
    logging.getLogger("celery.worker").info("ready")
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: INFO/MainProcess\] ready\n", stream.getvalue())


def test_a_line_of_a_task_names_the_task_and_its_id():
    stream = set_up(task_format="%(task_name)s[%(task_id)s]: %(message)s")
    token = logs.task_in_log.set(("proj.add", "id-1"))
    get_task_logger("proj.tasks").info("adding")
    logs.task_in_log.reset(token)
    get_task_logger("proj.tasks").info("outside")
    assert stream.getvalue() == "proj.add[id-1]: adding\n???[???]: outside\n"


def test_a_line_of_a_task_is_written_once():
    stream = set_up(format="main %(message)s", task_format="task %(message)s")
    get_task_logger("proj.other").warning("x")
    get_task_logger("celery.task.mine").warning("y")
    assert stream.getvalue() == "task x\ntask y\n"


@pytest.mark.parametrize("name", ["celery", "celery.task"])
def test_the_names_of_our_own_loggers_are_refused(name):
    with pytest.raises(RuntimeError, match=f"Logger name '{name}' is reserved!"):
        get_task_logger(name)


def test_the_handlers_of_the_root_logger_are_replaced():
    kept = logging.NullHandler()
    logging.getLogger().addHandler(kept)
    set_up()
    assert kept not in logging.getLogger().handlers
    assert len(logging.getLogger().handlers) == 1


def test_a_root_logger_that_is_not_ours_is_left_alone():
    theirs = logging.NullHandler()
    logging.getLogger().handlers[:] = [theirs]
    set_up(hijack_root=False)
    assert logging.getLogger().handlers == [theirs]


def test_a_receiver_of_setup_logging_does_it_all():
    def mine(**kwargs):
        heard.update(kwargs)

    heard = {}
    before = list(logging.getLogger().handlers)
    signals.setup_logging.connect(mine)
    try:
        assert not logs.setup_logging("INFO")
    finally:
        signals.setup_logging.disconnect(mine)
    assert (heard["loglevel"], heard["logfile"], heard["format"]) == (logging.INFO, None, logs.FORMAT)
    assert logging.getLogger().handlers == before
    assert not isinstance(sys.stdout, logs.LoggingProxy)


def test_receivers_may_change_what_was_set_up():
    heard = []

    def note(logger, loglevel, **kwargs):
        heard.append((logger.name, loglevel))

    signals.after_setup_logger.connect(note)
    signals.after_setup_task_logger.connect(note)
    set_up()
    assert heard == [("root", logging.INFO), ("celery.task", logging.INFO)]


def test_colours_are_for_terminals():
    terminal, file = set_up(Terminal()), None
    logging.getLogger("x").error("red")
    assert terminal.getvalue().startswith("\x1b[1;31m")
    file = set_up()
    logging.getLogger("x").error("plain")
    assert "\x1b" not in file.getvalue()


def test_colours_may_be_switched_off_and_on():
    plain, bright = set_up(Terminal(), color=False), None
    logging.getLogger("x").error("a")
    assert "\x1b" not in plain.getvalue()
    bright = set_up(color=True)
    logging.getLogger("x").error("b")
    assert "\x1b" in bright.getvalue()


def test_a_log_may_be_a_file(tmp_path):
    set_up(tmp_path / "w.log", format="%(message)s")
    logging.getLogger("x").warning("grüß")
    for handler in [*logging.getLogger().handlers, *logging.getLogger("celery.task").handlers]:
        handler.close()
    assert (tmp_path / "w.log").read_text("utf-8") == "grüß\n"
    assert os.environ["CELERY_LOG_FILE"] == str(tmp_path / "w.log")


def test_what_is_printed_is_logged_line_by_line():
    stream = set_up(redirect_stdouts=True, format="%(levelname)s %(name)s %(message)s")
    print("one\n  two\n\nthree", end="")
    assert stream.getvalue() == "WARNING celery.redirected one\nWARNING celery.redirected   two\n"
    sys.stdout.flush()
    assert "three" not in stream.getvalue()
    logs.flush_redirected()
    assert stream.getvalue().endswith("WARNING celery.redirected three\n")


def test_the_level_of_what_is_printed_is_a_choice():
    stream = set_up(redirect_stdouts=True, redirect_level="ERROR", format="%(levelname)s %(message)s")
    print("x", file=sys.stderr)
    assert stream.getvalue() == "ERROR x\n"


def test_threads_do_not_mix_their_lines():
    stream = set_up(redirect_stdouts=True, format="%(message)s")
    print("mine ", end="")
    thread = threading.Thread(target=print, args=("theirs",))
    thread.start()
    thread.join()
    print("too")
    assert stream.getvalue() == "theirs\nmine too\n"


def test_a_progress_bar_is_one_line():
    stream = set_up(redirect_stdouts=True, format="%(message)s")
    for percent in range(101):
        sys.stderr.write(f"\r{percent}%")
    sys.stderr.write("\n")
    assert stream.getvalue() == "100%\n"


def test_a_bar_that_ends_in_a_carriage_return_is_one_line_too():
    stream = set_up(redirect_stdouts=True, format="%(message)s")
    for text in ("50%\r", "60%\r", "\n", "dos\r", "\n", "end\r\n"):
        sys.stdout.write(text)
    assert stream.getvalue() == "60%\ndos\nend\n"


def test_a_line_without_end_does_not_fill_the_memory():
    stream = set_up(redirect_stdouts=True, format="%(message)s")
    for _ in range(70):
        sys.stdout.write("x" * 1024)
    assert len(stream.getvalue()) > 60_000


def test_a_failing_handler_does_not_log_without_end():
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError("disk full")

    set_up(Broken(), redirect_stdouts=True)
    assert sys.stdout.write("x\n") == 2


def test_a_level_is_given_by_name_or_number():
    assert (logs.mlevel("info"), logs.mlevel(15), logs.mlevel(None)) == (20, 15, 0)
    with pytest.raises(ValueError, match="'LOUD' is no log level"):
        logs.mlevel("LOUD")


def test_a_redirected_stream_still_knows_its_descriptor():
    proxy = logs.LoggingProxy(logging.getLogger("x"), "INFO", sys.__stderr__)
    assert proxy.fileno() == sys.__stderr__.fileno()
    assert not proxy.isatty()
    assert proxy.writable()
    with pytest.raises(io.UnsupportedOperation):
        logs.LoggingProxy(logging.getLogger("x")).fileno()
