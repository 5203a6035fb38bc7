"""After a time in which no scheduler ran, each entry does as its `misfire` says: on real stores, with real programs."""

import signal
import time
from itertools import pairwise

import pytest
from tests.beat.sites import APP, Site, moments
from tests.processes import wait_for

GRACE = 3
ENTRIES = f"""
app.conf.beat_schedule = {{
    "all": {{"task": "tasks.all", "schedule": 1.0, "misfire": "all"}},
    "skip": {{"task": "tasks.skip", "schedule": 1.0, "misfire": "skip", "grace": {GRACE}}},
    "once": {{"task": "tasks.once", "schedule": 1.0, "misfire": "once"}},
    "late": {{"task": "tasks.late", "schedule": 1.0, "misfire": "all", "grace": {GRACE}}},
}}
"""
DOWN = 8  # seconds


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_down_time_each_entry_does_as_its_misfire_says(store, tmp_path):
    site = Site(tmp_path, *store, app=APP + ENTRIES)

    def slots(name):
        return moments(site.slots(), name)

    with site.beat() as program:
        wait_for(lambda: len(slots("all")) >= 2, 60, site.logs)
        program.kill()
    last = {name: slots(name)[-1] for name in ("all", "skip", "once", "late")}
    wait_for(lambda: time.time() > max(last.values()) + DOWN, 60)
    back = time.time()
    with site.beat() as program:
        wait_for(lambda: slots("all") and slots("all")[-1] > back + 2, 60, site.logs)
        program.send(signal.SIGTERM)
        assert program.exit_code() == 0, program.tail()

    assert set(site.slots().values()) == {1}
    assert gaps(slots("all")) == []
    for name in ("skip", "late"):  # what is older than the grace is left out
        [(before, after)] = gaps(slots(name))
        assert before == last[name]
        assert after >= back - GRACE
    [(stands_for_all, after)] = gaps(slots("once"))
    # One run for all, named after the first of them: the last one before, if the scheduler was killed before it wrote so.
    assert stands_for_all - last["once"] in {0, 1}
    assert after >= back
    site.app.close()


def gaps(found):
    """The pairs of neighbours that are further apart than the schedule says."""
    return [(one, other) for one, other in pairwise(found) if other - one > 1.5]
