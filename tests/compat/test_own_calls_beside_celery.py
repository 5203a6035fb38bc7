"""An overridden `Task.apply_async` is called where Celery calls it: by the producer and by whoever sends what follows."""

from collections import Counter

import pytest
from tests.processes import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

CALLS, LINKED = 17, 3


@pytest.mark.parametrize("embed", [False, True], ids=["records", "embedded"])
def test_an_own_apply_async_is_called_for_each_task_of_a_canvas(new_fleet, embed):
    found = {}
    for library in ("celery", "umbel"):
        how = {"imports": ["own_calls"], **({"task_canvas_embed": True} if embed and library == "umbel" else {})}
        fleet = new_fleet()
        calls = lambda fleet=fleet: Counter(what for _, what in fleet.ledger() if what.startswith("call"))  # noqa: E731
        with fleet.worker(library, **how):
            said = fleet.script(library, "import own_calls; own_calls.run()", **how)
            wait_for(lambda calls=calls: sum(calls().values()) >= CALLS + LINKED, 15, fleet.tails)
        found[library] = said, calls()
    assert found["umbel"] == found["celery"]
    assert found["umbel"][0][0] == "1+1"
