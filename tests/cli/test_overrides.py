"""Settings behind the options."""

import pytest

from umbel.cli.overrides import parse_overrides


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("worker_prefetch_multiplier=1", "worker_prefetch_multiplier", 1),
        ("worker.prefetch_multiplier=1", "worker_prefetch_multiplier", 1),
        (".prefetch_multiplier=1", "worker_prefetch_multiplier", 1),
        ("prefetch_multiplier=1", "worker_prefetch_multiplier", 1),
        ("task_acks_late=false", "task_acks_late", False),
        ("broker.url=redis://h/0", "broker_url", "redis://h/0"),
        ("my_own=(int)3", "my_own", 3),
        ("my_own=(bool)no", "my_own", False),
        ('my_own=(json){"a": [1]}', "my_own", {"a": [1]}),
        ("my_own=(tuple)[1, 2]", "my_own", (1, 2)),
        ("my_own=3", "my_own", "3"),
        ("my_own=", "my_own", ""),
    ],
)
def test_a_word_sets_a_setting(word, name, value):
    assert parse_overrides([word], "worker") == {name: value}


@pytest.mark.parametrize("word", ["", "x", "=1", "1=1", "-x=1"])
def test_a_word_without_a_name_and_a_value_is_refused(word):
    with pytest.raises(ValueError, match="is not a setting"):
        parse_overrides([word], "worker")
