"""Running a canvas here and now: the same nodes and joins as in workers, gone through in this thread."""

from __future__ import annotations

import traceback as stdlib_traceback
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel import states
from umbel.canvas.compile import Compiler
from umbel.canvas.errbacks import is_new_style
from umbel.canvas.fresh import fresh_id
from umbel.canvas.launch import arguments_of, launch_options
from umbel.canvas.options import LINKS
from umbel.canvas.sending import refuse_unsendable
from umbel.canvas.signatures import Signature
from umbel.canvas.start import frozen_copy
from umbel.context import Context
from umbel.exceptions import ChordError
from umbel.flow import Follow, Join, Node, Part
from umbel.result import EagerResult, GroupResult
from umbel.said import store_eager
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["run_canvas"]

LONGEST = 10_000  # characters of an exception in the text of another
OF_THE_CALL = ("throw", "add_to_parent", "producer", "using", "retry", "retry_policy")


def run_canvas(sig: Signature[Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
    """Run *sig* and all that follows it; return its result.

    Raises:
        Exception: that with which it ended, if `task_eager_propagates` or *throw* says so.
    """
    app = sig.app
    call = {name: options.pop(name) for name in OF_THE_CALL if name in options}
    if sig.subtask_type is None and not any(sig.options.get(name) or options.get(name) for name in LINKS):
        args, kwargs, options = sig._merge(args, kwargs, options)  # noqa: SLF001 - the same package
        return sig.type.apply(args, kwargs, **options, **call)
    frozen, result = frozen_copy(sig, args, kwargs, options)
    if result is None:
        return None
    refuse_unsendable(app, frozen)
    compiler = Compiler(fresh_id())
    starts = list(compiler.starts(frozen))
    flow = EagerFlow(app, compiler)
    flow.run([start.node for start in starts])
    found = flow.result_of(result)
    throw = call.get("throw")
    if app.conf.task_eager_propagates if throw is None else throw:
        for each in found.results if isinstance(found, GroupResult) else [found]:
            each.maybe_throw()
    return found


class EagerFlow:
    """One flow while it runs."""

    def __init__(self, app: Umbel, compiler: Compiler) -> None:
        self._app, self._compiled = app, compiler
        self._waiting: deque[tuple[Node, tuple[Any, ...]]] = deque()
        self._arrived: dict[int, dict[int, Any]] = {}
        self._failed: set[int] = set()
        self._results: dict[str, EagerResult[Any]] = {}

    def run(self, nodes: Sequence[Node]) -> None:
        """Run *nodes* and what follows them."""
        self._waiting.extend((node, ()) for node in nodes)
        while self._waiting:
            node, value = self._waiting.popleft()
            result = self._call(node, value)
            self._results[node.id] = result
            if result.state == states.SUCCESS:
                self._succeeded(node.follow, result.result)
            elif result.state in states.PROPAGATE_STATES:
                self._fail(node, result, told=True, heard=[])

    def _call(self, node: Node, value: tuple[Any, ...]) -> EagerResult[Any]:
        options = launch_options(self._app, node, None)
        args, kwargs = arguments_of(node.signature, value), dict(node.signature.get("kwargs") or {})
        task = self._app.tasks[node.signature["task"]]
        return self._app.call_eagerly(task, args, kwargs, {**options, "throw": False})

    def _succeeded(self, follow: Follow, value: Any) -> None:
        self._waiting.extend((self._compiled.nodes[number], (value,)) for number in (*follow.steps, *follow.links))
        for part in follow.parts:
            self._arrive(part, value)

    def _arrive(self, part: Part, value: Any) -> None:
        join, arrived = self._compiled.joins[part.join], self._arrived.setdefault(part.join, {})
        arrived[part.position] = value
        if len(arrived) == join.size and part.join not in self._failed:
            self._succeeded(join.follow, [arrived[position] for position in range(join.size)])

    def _fail(self, node: Node, result: EagerResult[Any], *, told: bool, heard: list[Mapping[str, Any]]) -> None:
        """Let all that is behind *node* fail with it. An errback of a whole chain has *heard* once of it."""
        for errback in node.follow.errbacks if told else ():
            if errback not in heard:
                heard.append(errback)
                self._tell(errback, node, result)
        for number in node.follow.steps:
            self._doom(self._compiled.nodes[number], result.result, result.traceback, told=False, heard=heard)
        for part in node.follow.parts:
            self._break(part.join, node.id, result, [] if told else heard)

    def _break(self, number: int, failed: str, result: EagerResult[Any], heard: list[Mapping[str, Any]]) -> None:
        if number in self._failed:
            return
        self._failed.add(number)
        join: Join = self._compiled.joins[number]
        exc = result.result
        if not join.to_group:
            exc = ChordError(f"Dependency {failed} raised {saferepr(exc, LONGEST)}")
        for step in join.follow.steps:
            self._doom(self._compiled.nodes[step], exc, result.traceback, told=True, heard=heard)
        for part in join.follow.parts:
            self._break(part.join, failed, result, heard)

    def _doom(self, node: Node, exc: Any, traceback: str | None, *, told: bool, heard: list[Mapping[str, Any]]) -> None:
        result: EagerResult[Any] = EagerResult(node.id, exc, states.FAILURE, traceback, name=node.signature["task"])
        self._results[node.id] = result
        if (task := self._app.known_task(node.signature["task"])) is not None:
            store_eager(task, node.id, states.FAILURE, exc, traceback)
        self._fail(node, result, told=told, heard=heard)

    def _tell(self, errback: Mapping[str, Any], node: Node, result: EagerResult[Any]) -> None:
        """Call an errback; what it raises changes nothing."""
        sig: Signature[Any] = Signature.from_dict(errback, app=self._app)
        task = sig.type
        if sig.immutable or not is_new_style(task):
            sig.apply((result.id,), throw=False)
            return
        request = Context(
            id=node.id, task=node.signature["task"], args=node.signature["args"], kwargs=node.signature["kwargs"], is_eager=True,
            called_directly=False,
        )  # fmt: skip
        try:
            task(request, result.result, result.traceback, *sig.args, **sig.kwargs)
        except Exception:  # noqa: BLE001 - as in a worker, it is only shown
            stdlib_traceback.print_exc()

    def result_of(self, result: Any) -> Any:
        """Return what became of a result that `freeze` made, and of its parents, which may be many."""
        last: Any = None
        below: Any = None
        while result is not None:
            found: Any
            if isinstance(result, GroupResult):
                found = GroupResult(result.id, [self.result_of(each) for each in result.results])
            else:
                found = self._results.get(result.id) or EagerResult(result.id, None, states.PENDING)
            last = found if last is None else last
            if below is not None:
                below.parent = found
            below, result = found, result.parent
        return last
