"""`task_allow_error_cb_on_chord_header`, with both values: who is told of which failure by Celery's worker and by umbel's."""

from collections import Counter

import pytest
from tests.processes import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

SENT = """
from {library} import chain, chord
def failed(sig):
    exc = sig.apply_async().get(timeout=60, propagate=False)
    print(type(exc).__name__)
member = lambda name: fails.s(name).set(task_id=name)
failed(chord([member('one'), add.s(1, 1)], total.s().set(task_id='body-1')).on_error(work.si('chord-1')))
failed(chord([add.s(1, 1), add.s(2, 2)], fails.si('x').set(task_id='body-2')).on_error(work.si('chord-2')))
failed(chord([chain(add.s(1, 1), member('three')), add.s(1, 1)], total.s().set(task_id='body-3')).on_error(work.si('chord-3')))
"""


@pytest.mark.parametrize(("allowed", "told"), [(False, 3), (True, 5)])
def test_the_errback_of_a_chord_is_told_of_members_as_with_celery(new_fleet, allowed, told):
    found = {}
    for library in ("celery", "umbel"):
        fleet = new_fleet(task_allow_error_cb_on_chord_header=allowed)
        heard = lambda fleet=fleet: Counter(what for _, what in fleet.ledger())  # noqa: E731
        with fleet.worker(library):
            said = fleet.script(library, SENT.replace("{library}", library))
            wait_for(lambda heard=heard: sum(heard().values()) >= told, 15, lambda heard=heard: str(heard()))
            fleet.script(library, "print(add.delay(1, 1).get(timeout=60))")
        found[library] = said, heard()
    assert found["umbel"] == found["celery"]
