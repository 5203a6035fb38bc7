"""Canvases of plans, for both libraries: what they come to, and who was called. `tests.canvas.generator` makes the plans."""

import importlib
import json
import time
from pathlib import Path

from fleet import LIBRARY, add, app, note

canvas = importlib.import_module("celery" if LIBRARY == "celery" else "umbel")
FINAL = {"SUCCESS", "FAILURE", "REVOKED"}


@app.task(typing=False)
def grow(*args):
    *values, name = args
    note(name)
    return {"given": values, "name": name}


@app.task(typing=False)
def fail(*args):
    note(args[-1])
    raise ValueError(args[-1])


@app.task(bind=True, typing=False, default_retry_delay=0)
def again(self, *args):
    *values, name = args
    if not self.request.retries:
        raise self.retry(countdown=0.3)  # Celery's worker stores RETRY after it has sent: over what another has stored, if that is quick
    note(name)
    return {"given": values, "name": name}


@app.task(bind=True, typing=False)
def instead(self, *args):
    raise self.replace(grow.si(*args))


@app.task
def told(name):
    note(f"told {name}")


@app.task(bind=True)
def hears(self, failed, name):
    """An errback of the old form: which task has failed."""
    note(f"hears {name} {failed}")


@app.task
def hears_all(request, exc, traceback, name):
    """An errback of the new form: all that it is given."""
    cause = "" if exc.__cause__ is None else f" from {exc.__cause__!r}"
    note(f"hears_all {name} {request.id} {exc!r}{cause} {'Traceback' in str(traceback)}")


TASKS = {"grow": grow, "fail": fail, "again": again, "instead": instead}


def built(plan, names, told_what=False):
    """The canvas of a plan; each task has an errback of its own, as in `tests.canvas.generator`.

    With *told_what* ids are the names of the tasks, and errbacks say what they were given: those of the new form every second time.
    """
    kind = plan[0]
    if kind == "chain":
        return canvas.chain(*[built(each, names, told_what) for each in plan[1]])
    if kind == "group":
        return canvas.group([built(each, names, told_what) for each in plan[1]])
    if kind == "chord":
        header = [built(each, names, told_what) for each in plan[1]]
        return canvas.chord(header, built(plan[2], names, told_what))
    name = next(names)
    sig = TASKS[kind].signature((name,), immutable=plan[1])
    if told_what:
        sig.set(task_id=name)
        sig.link_error((hears if int(name.split(".t")[1]) % 2 else hears_all).s(name=name))
    else:
        sig.link_error(told.si(name))
    return sig


def names_of(number):
    count = 0
    while True:
        count += 1
        yield f"{number}.t{count}"


def ends_many(plan):
    """Whether it ends with a group: a callback of that is called in other ways."""
    last = plan[1][-1] if plan[0] == "chain" else plan[2] if plan[0] == "chord" else None
    return plan[0] == "group" or (last is not None and ends_many(last))


def sent(number, plan, told_what=False):
    """Send a canvas. Each third is told of failures as a whole, and each third has a callback."""
    sig = built(plan, names_of(number), told_what)
    if told_what:
        return sig.apply_async()
    if number % 3 == 1:
        sig.link_error(told.si(f"{number}.whole"))
    if number % 3 == 2 and not ends_many(plan):
        sig.link(grow.si(f"{number}.linked"))
    return sig.apply_async()


def shape(result, texts=False):
    """What became of a result, of its members, and of what was before it; with *texts* exceptions with what they say."""
    if result is None:
        return None
    if hasattr(result, "results"):
        return {"members": [shape(each, texts) for each in result.results], "before": shape(result.parent, texts)}
    state = result.state
    value = result.result if state == "SUCCESS" else said(result.result, texts) if state in FINAL else None
    return {"state": state, "value": value, "before": shape(result.parent, texts)}


def said(exc, texts):
    return f"{type(exc).__name__}: {exc}" if texts else type(exc).__name__


def ended(found):
    if found is None:
        return True
    if "members" in found:
        return all(map(ended, found["members"])) and ended(found["before"])
    return found["state"] in FINAL and ended(found["before"])


def run(path, patience, told_what=False):
    """Print what becomes of the plans in the file *path*, a line of JSON for each: when all ended, or none did for *patience* seconds."""
    plans = json.loads(Path(path).read_text())
    results = []
    for number, plan in enumerate(plans):
        try:
            results.append(sent(number, plan, told_what))
        except Exception as exc:
            results.append(exc)
    end = time.monotonic() + patience
    shapes = {}
    while True:
        for number, result in enumerate(results):
            if number not in shapes:
                found = {"raised": repr(result)} if isinstance(result, Exception) else shape(result, told_what)
                if "raised" in (found or {}) or ended(found):
                    shapes[number] = found
                    end = time.monotonic() + patience
        if len(shapes) == len(results) or time.monotonic() > end:
            break
        add.delay(1, 1).get(timeout=60)
    for _ in range(3):
        add.delay(1, 1).get(timeout=60)
    for number, result in enumerate(results):
        print(json.dumps(shapes[number] if number in shapes else {"unfinished": shape(result, told_what)}))
