"""Exceptions as JSON, and back without trusting it."""

import builtins
import importlib.util
import json
import sys
import types
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import exceptions
from umbel.exceptions import SecurityError
from umbel.wire.failures import describe, rebuild
from umbel.wire.jsontypes import dumps, loads


class DomainError(Exception):
    class NestedError(Exception):
        pass


class TwoNeededError(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")


class Halt(BaseException):
    pass


def roundtrip(exc: BaseException) -> BaseException:
    return rebuild(loads(dumps(describe(exc))))


def named(name: str, module: str = "builtins", args: object = ()) -> dict[str, object]:
    return {"exc_type": name, "exc_message": args, "exc_module": module}


@pytest.mark.parametrize(
    "exc", [ValueError("bad", 5), KeyError("k"), DomainError(42, "domain"), DomainError.NestedError(), OSError(2, "gone")]
)
def test_an_exception_comes_back_as_it_was(exc):
    again = roundtrip(exc)
    assert type(again) is type(exc)
    assert again.args == exc.args


def test_an_exception_is_described_as_celery_describes_it():
    assert describe(DomainError.NestedError("a", 1)) == {
        "exc_type": "DomainError.NestedError",
        "exc_message": ["a", 1],
        "exc_module": __name__,
    }


def test_an_argument_that_json_cannot_say_becomes_its_repr():
    class Broken:
        def __json__(self):
            raise RuntimeError

        def __repr__(self):
            return "<broken>"

    assert describe(ValueError({1}, Broken(), b"x"))["exc_message"] == ["{1}", "<broken>", b"x"]


@pytest.mark.parametrize(
    ("exc", "module"),
    [
        (exceptions.TaskRevokedError("expired"), "celery.exceptions"),
        (exceptions.TimeLimitExceeded(1), "billiard.exceptions"),
        (exceptions.WorkerLostError("x"), "billiard.exceptions"),
        (exceptions.OperationalError("x"), "kombu.exceptions"),
        (exceptions.BackendError("x"), "celery.exceptions"),
        (exceptions.BrokerUnavailable("x"), "umbel.exceptions"),
    ],
)
def test_our_exceptions_bear_the_modules_that_celery_readers_know(exc, module):
    assert describe(exc)["exc_module"] == module
    assert type(roundtrip(exc)) is type(exc)


def test_a_class_that_is_not_imported_is_made_up_and_keeps_its_name():
    described = named("Outer.Missing", "nowhere.errors", ["a", 1])
    made = rebuild(described)
    assert isinstance(made, Exception)
    assert (type(made).__name__, made.args) == ("Missing", ("a", 1))
    assert describe(made) == described


def test_nothing_is_imported():
    module = "this"  # a module of the standard library that prints when it is imported
    sys.modules.pop(module, None)
    rebuild(named("Error", module))
    assert module not in sys.modules


def test_a_lazy_module_is_not_woken():
    woken = []
    lazy = types.ModuleType("lazy_errors")
    lazy.__getattr__ = woken.append
    sys.modules["lazy_errors"] = lazy
    spec = importlib.util.find_spec("this")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    slow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slow)
    sys.modules["slow_errors"] = slow
    try:
        assert type(rebuild(named("Boom", "lazy_errors"))).__name__ == "Boom"
        assert type(rebuild(named("Boom", "slow_errors"))).__name__ == "Boom"
    finally:
        del sys.modules["lazy_errors"], sys.modules["slow_errors"]
    assert not woken
    assert type(slow).__name__ == "_LazyModule"


@pytest.mark.parametrize(
    ("name", "module"), [("system", "os"), ("eval", "builtins"), ("dict", "builtins"), ("path", "sys"), ("Popen", "subprocess")]
)
def test_what_is_no_exception_is_refused(name, module):
    with pytest.raises(SecurityError, match="worker may be writing"):
        rebuild(named(name, module, ["echo"]))


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"])
def test_what_would_end_the_process_comes_back_as_an_ordinary_exception(name):
    made = rebuild(named(name, args=[3]))
    assert isinstance(made, Exception)
    assert not isinstance(made, getattr(builtins, name)) or name == "BaseException"
    assert (type(made).__name__, made.args) == (name, (3,))


def test_base_exceptions_of_others_come_back_as_ordinary_exceptions_too():
    assert isinstance(roundtrip(Halt("x")), Exception)
    assert isinstance(roundtrip(exceptions.WorkerShutdown(1)), Exception)


def test_a_constructor_that_fails_leaves_its_text():
    made = roundtrip(TwoNeededError(5, "why"))
    assert type(made) is Exception
    assert "TwoNeededError" in str(made)
    assert "'5: why'" in str(made)


def test_a_constructor_that_returns_something_else_is_not_believed(monkeypatch):
    class OddError(Exception):
        def __new__(cls, *args):
            return 5

    monkeypatch.setattr(sys.modules[__name__], "OddError", OddError, raising=False)
    assert type(rebuild(named("OddError", __name__))) is Exception


@pytest.mark.parametrize(
    ("message", "args"), [("text", ("text",)), (["a", 1], ("a", 1)), (("a",), ("a",)), (None, ()), ({"k": 1}, ({"k": 1},))]
)
def test_the_message_may_be_a_list_or_a_text(message, args):
    assert rebuild(named("ValueError", args=message)).args == args


@pytest.mark.parametrize("described", [None, "boom", 5, [], {}, {"exc_type": 5}, {"exc_type": None}])
def test_a_failure_without_a_description_is_still_an_exception(described):
    assert "without a description" in str(rebuild(described))


def test_a_pickled_exception_is_returned_as_it_is():
    exc = ValueError(1)
    assert rebuild(exc) is exc


@pytest.mark.parametrize("name", ["", "\0", "\ud800", "a\nb", "..", "x" * 10_000, "Exception.__class__", "ValueError.__init__", "<locals>"])
@pytest.mark.parametrize("module", ["builtins", "", "\0", "\ud800", __name__, None, 5])
def test_odd_names_make_exceptions_or_are_refused(name, module):
    with suppress(SecurityError):
        assert isinstance(rebuild({"exc_type": name, "exc_module": module, "exc_message": []}), Exception)


values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
names = st.sampled_from(sorted(name for name in dir(builtins) if isinstance(getattr(builtins, name), type))) | st.text()


@given(names, st.just("builtins") | st.sampled_from(sorted(sys.modules)) | values, values)
def test_hostile_descriptions_make_ordinary_exceptions_or_are_refused(name, module, message):
    with suppress(SecurityError):
        made = rebuild({"exc_type": name, "exc_module": module, "exc_message": message})
        assert isinstance(made, Exception)
        assert json.loads(dumps(describe(made)))
