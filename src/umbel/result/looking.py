"""What can be seen of a workflow from a result: from its record, if it is found, and from what is stored of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel.canvas.fresh import flow_of
from umbel.result.base import Stored
from umbel.result.ends import tasks_in
from umbel.result.record import MOST, FlowRecord
from umbel.result.tree import Tree, group_tree, steps_tree, task_tree
from umbel.result_wait import read

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["is_of_workflow", "tree_of"]

DEEPEST = 1000  # steps from a task up to the first of its workflow

Known = dict[str, Mapping[str, Any]]


def tree_of(result: Any) -> Tree:
    """Return what can be seen from *result*: its workflow, what was before it, and what its tasks sent; read in steps of 500."""
    steps = _steps(result)
    seen = {each.id: each for step in steps for each in _within(step)}
    known = _read(seen)
    record = _record_of(result, known)
    if record is not None and (isinstance(result, Stored) or seen.keys() <= record.names.keys()):
        known |= _read({each: _beside(result, each) for each in record.names if each not in seen})
        above = _climbed(_beside(result, record.first), known)[:-1]
        children = _children(result.app, known, {each.id for each in above} | record.names.keys())
        drawn = record.draw(lambda task_id, name, members: _task(task_id, name, known, children, members))
        return steps_tree([*(_drawn(each, known, children, set()) for each in above), *drawn])
    if len(steps) == 1 and isinstance(steps[0], Stored):  # made from an id: its document tells what was before
        steps = _climbed(steps[0], known)
    ids = {step.id for step in steps}
    children = _children(result.app, known, ids | set(known))
    return steps_tree([_drawn(step, known, children, ids) for step in steps])


# Finding the record


def is_of_workflow(result: Any) -> bool:
    """Answer whether *result* is that of a workflow whose record is still there; of a step inside it is not."""
    return _record_of(result, {}) is not None


def _record_of(result: Any, known: Known) -> FlowRecord | None:
    """Return the record of the workflow that *result* belongs to; None: there is none, or it is not found."""
    backend = result.backend
    if not backend.keeps_flows or not result.id:
        return None
    told = known.get(result.id, {}).get("flow")
    for flow in (told, result.id):
        if flow and (record := FlowRecord.read(backend, flow, result.app.accepted_content())) is not None:
            return record
    from umbel.result.groups import GroupResult

    named = GroupResult.restore(flow_of(result.id), backend=backend, app=result.app)
    return None if named is None else FlowRecord.read(backend, named.results[0].id, result.app.accepted_content())


# Reading what is stored


def _steps(result: Any) -> list[Any]:
    steps = [result]
    while steps[0].parent is not None and len(steps) < DEEPEST:
        steps.insert(0, steps[0].parent)
    return steps


def _within(step: Any) -> list[Stored[Any]]:
    """Return the results of all tasks in *step*, those before its members too."""
    found: list[Stored[Any]] = []
    waiting, seen = [step], set[int]()
    while waiting and len(found) < MOST:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if each is not step and each.parent is not None and each.parent is not step.parent:
            waiting.append(each.parent)
        if isinstance(each, Stored):
            found.append(each)
        else:
            waiting.extend(reversed(each.results))
    return found


def _beside(result: Any, task_id: str) -> Stored[Any]:
    """Return the result of another task of the same workflow."""
    from umbel.result.single import AsyncResult

    return AsyncResult(task_id, backend=result.backend, app=result.app)


def _read(results: Mapping[str, Stored[Any]]) -> Known:
    ids = [task_id for task_id, each in results.items() if not each.is_settled]
    found = dict(zip(ids, read(results[ids[0]].backend, ids, 0.0), strict=True)) if ids else {}
    return {task_id: each.known_with(found.get(task_id)) for task_id, each in results.items()}


def _climbed(result: Stored[Any], known: Known) -> list[Any]:
    steps = [result]
    while (above := known[steps[0].id].get("parent_id")) and above not in known and len(steps) < DEEPEST:
        parent = _beside(result, above)
        known |= _read({above: parent})
        steps.insert(0, parent)
    return steps


def _children(app: Umbel, known: Known, drawn: set[Any]) -> dict[str, list[Any]]:
    """Return what each task sent that is not drawn elsewhere, and read that, too, level by level."""
    from umbel.result.groups import result_from_tuple

    found: dict[str, list[Any]] = {}
    level = dict(known)
    while level and len(known) < MOST:
        fresh: dict[str, Stored[Any]] = {}
        for task_id, meta in level.items():
            for child in (result_from_tuple(each, app) for each in meta.get("children") or ()):
                tasks = tasks_in(child)
                if child.id not in drawn and not any(each.id in drawn for each in tasks):
                    found.setdefault(task_id, []).append(child)
                    fresh.update((each.id, each) for each in tasks)
                    drawn.update([child.id, *(each.id for each in tasks)])
        level = _read(fresh)
        known |= level
    return found


# Drawing


def _drawn(result: Any, known: Known, children: Mapping[str, Sequence[Any]], before: set[Any]) -> Tree:
    """Draw one step; *before* are the ids of all steps, which are not drawn again before its members."""
    if isinstance(result, Stored):
        return _task(result.id, result.name_given, known, children, ())
    members = []
    for each in result.results:
        steps = [step for step in _steps(each) if step is each or step.id not in before]
        members.append(steps_tree([_drawn(step, known, children, before | {step.id for step in steps}) for step in steps]))
    return group_tree(result.id, members)


def _task(task_id: str, name: str | None, known: Known, children: Mapping[str, Sequence[Any]], members: Sequence[Tree]) -> Tree:
    sent = [_drawn(each, known, children, {each.id}) for each in children.get(task_id, ())]
    return task_tree(task_id, known.get(task_id), name, [*members, *sent])
