"""Tasks with an `apply_async` of their own, as third-party packages have them."""

import importlib
import os

from fleet import FOLDER, LIBRARY, app, note, told

canvas = importlib.import_module(LIBRARY)


class Noted(app.Task):
    """Says in the ledger which call was made, and where."""

    def apply_async(self, args=None, kwargs=None, *positional, **options):
        note(f"call {'producer' if (FOLDER / 'producer').read_text() == str(os.getpid()) else 'worker'} {self.name} {len(args or ())}")
        return super().apply_async(args, {**(kwargs or {}), "added": 1}, *positional, **options)


class Linked(app.Task):
    """Adds a callback and an errback to each call."""

    def apply_async(self, args=None, kwargs=None, **options):
        return super().apply_async(args, kwargs, **{**options, "link": noted.si("link"), "link_error": told.si("error")})


@app.task(base=Noted)
def noted(*args, added=0):
    return f"{args[-1]}+{added}"


@app.task(base=Noted)
def joined(values, added=0):
    return [*values, added]


@app.task(base=Noted)
def noted_fails(*args, added=0):
    raise ValueError(added)


@app.task(base=Noted)
def noted_told(failed, *, added=0):
    """An errback of the old style."""


@app.task(base=Linked)
def linked(*args):
    return len(args)


def value(sig):
    return sig.apply_async().get(timeout=60)


def run():
    (FOLDER / "producer").write_text(str(os.getpid()))
    print(value(noted.s(1)))
    print(value(canvas.chain(noted.s(2), noted.s(3), noted.s(4))))
    print(value(canvas.group(noted.s(5), noted.s(6))))
    print(value(canvas.chord([noted.s(7), noted.s(8)], joined.s())))
    print(value(canvas.chain(noted.s(9), canvas.group(noted.s(10), noted.s(11)), joined.s())))
    noted.apply_async((12,), link=noted.s(13), link_error=noted.s(14)).get(timeout=60)
    noted_fails.apply_async((15,), link_error=noted_told.s()).get(timeout=60, propagate=False)
    print(value(canvas.chain(linked.s(17), linked.s(18), linked.s(19))))
