"""Workflows of one library in the other's workers, and chords of which both have run members."""

from collections import Counter

import pytest
from tests.compat.test_beside_celery import leftovers
from tests.processes import wait_for

pytestmark = pytest.mark.redis

VALUES = """
from {library} import chain, chord, group
def value(sig): return sig.apply_async().get(timeout=60)
print(value(chain(add.s(1, 2), add.s(3), add.si(4, 5), add.s(6))))
print(value(group(add.s(n, n) for n in range(4))))
print(value(add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(1)))
print(value(chord([add.s(1, 1), add.s(2, 2), chain(add.s(1, 1), add.s(3))], total.s())))
print(value(chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())))
print(value(chord([add.s(1, 1), group(add.s(2, 2), add.s(3, 3))], total.s())))
print(value(chain(add.s(1, 1), chord([add.s(1), add.s(2)], total.s()), add.s(5))))
print(value(chord([add.s(1, 1), flaky.s(2)], total.s())))
print(value(chord([flaky.s(1), add.s(2, 2)], chain(total.s(), add.s(1)))))
print(value(chord([add.s(1, 1)], group(echo.s(), echo.s(2)))))
print(value(chord([add.s(1, 1) | group(add.s(1), add.s(2)), add.s(3, 3)], echo.s())))
print(value(chain(add.s(1, 1), group(add.s(1) | group(add.s(1), add.s(2)), add.s(3)), echo.s())))
print(value(chord([chord([add.s(1, 1), add.s(2, 2)], group(echo.s(), echo.s(2))), add.s(3, 3)], echo.s())))
"""
EXPECTED = ["15", "[0, 2, 4, 6]", "8", "11", "12", "12", "12", "4", "6", "[[[[2]], {}], [[[2], 2], {}]]"]
EXPECTED += ["[[[[3, 4], 6]], {}]", "[[[[4, 5], 5]], {}]"]  # of members that end with a group
EXPECTED += ["[[[[[[[2, 4]], {}], [[[2, 4], 2], {}]], 6]], {}]"]

FOLLOWED = """
from {library} import chain, chord, group
def failed(result):
    exc = result.get(timeout=60, propagate=False)
    return f'{type(exc).__name__} {exc}'
add.apply_async((1, 2), link=[work.s(), work.si(7)])
print(sent := fails.apply_async(('x',), link_error=[told.s('old'), told_more.s()]).id)
last = chain(fails.s('y'), work.s(), work.s()).on_error(told.s('chain')).apply_async()
print(failed(last), failed(last.parent))
header = [fails.s('z').set(task_id='the-member'), add.s(1, 1)]
whole = chord(header, body.s('failed').set(task_id='the-body').on_error(told.s('chord'))).apply_async()
print(failed(whole))
after = chain(chord([fails.s('a').set(task_id='member-2'), add.s(1, 1)], total.s()), add.s(1)).apply_async()
print(failed(after))
behind = chain(fails.s('b'), add.s(1).set(task_id='behind'))
print(failed(chord([behind, add.s(1, 1)], total.s()).apply_async()))
"""


@pytest.fixture(scope="module", params=["celery", "umbel"])
def workers(request, new_fleet):
    """A fleet whose workers are of one library, and whose producer is of the other."""
    if request.param == "celery":
        fleet = new_fleet()
        with fleet.worker("umbel", "-c", "2"):
            yield request.param, fleet
    else:
        fleet = new_fleet(task_canvas_embed=True, task_delay_for="celery")
        with fleet.worker("celery"):
            yield request.param, fleet


def test_workflows_give_their_values_in_the_others_workers(workers):
    producer, fleet = workers
    assert fleet.script(producer, VALUES.format(library=producer)) == EXPECTED


def test_callbacks_run_and_failures_are_told_in_the_others_workers(workers):
    producer, fleet = workers
    said = fleet.script(producer, FOLLOWED.replace("{library}", producer))

    def ledger() -> set[str]:
        return {what for _, what in fleet.ledger() if not what.startswith("flaky")}

    wait_for(lambda: len(ledger()) == 6, 15, lambda: f"{ledger()}\n{fleet.tails()}")
    assert {"3", "7", f"told old {said[0]}", f"told_more {said[0]} ValueError('x') True", "told chord the-body"} < ledger()
    assert [what.split()[1] for what in ledger() if what.startswith("told chain")] == ["chain"]
    assert said[1:] == [
        "ValueError y ValueError y",
        "ChordError Dependency the-member raised ValueError('z')",
        "ChordError Dependency member-2 raised ValueError('a')",
        "ChordError Dependency behind raised ValueError('b')",
    ]


CHORDS, SIZE = 30, 6
MANY = """
from celery import chord
sent = [chord([work.s(n, 0.005) for n in range({size})], body.s(str(c))).apply_async() for c in range({chords})]
print([each.get(timeout=60) for each in sent] == [{size}] * {chords})
broken = [chord([work.s(0, 0.01), fails.s(c), work.s(1)], body.s('no').on_error(told.s(c))).apply_async() for c in range({chords})]
print(sum('Dependency' in str(each.get(timeout=60, propagate=False)) for each in broken))
"""


@pytest.mark.parametrize("ordered", [True, False])
def test_a_chord_whose_members_run_in_both_libraries_workers_ends_once(new_fleet, ordered):
    fleet = new_fleet(**({} if ordered else {"result_backend_transport_options": {"result_chord_ordered": False}}))
    with fleet.worker("celery") as celery, fleet.worker("umbel", "-c", "2") as umbel:
        celery.waits_to_print("ready.")
        umbel.waits_to_print("ready.")
        assert fleet.script("celery", MANY.format(size=SIZE, chords=CHORDS)) == ["True", str(CHORDS)]
        told = lambda: [what for _, what in fleet.ledger() if what.startswith("told")]  # noqa: E731
        wait_for(lambda: len(told()) >= CHORDS, 15, fleet.tails)
        for worker in (celery, umbel):
            worker.send(15)
            assert worker.exit_code() == 0, worker.tail()
    bodies = Counter(what for _, what in fleet.ledger() if what.startswith("body"))
    assert bodies == {f"body {c} {list(range(SIZE))}": 1 for c in range(CHORDS)}
    assert Counter(what.split()[1] for what in told()) == {str(c): 1 for c in range(CHORDS)}
    assert min(Counter(who for who, what in fleet.ledger() if what.isdigit()).values()) > 20, "one worker did it all"
    assert leftovers(fleet) == {}
