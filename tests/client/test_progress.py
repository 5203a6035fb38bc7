"""How far a task is, and a workflow as it can be seen while it runs."""

import json
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from umbel import Celery, states, uuid
from umbel.backend import Record
from umbel.cli.graph import as_dot, as_json, as_svg, as_text
from umbel.context import Context
from umbel.exceptions import IncompleteStream
from umbel.meta import build_meta, encode_meta
from umbel.result import DependencyGraph, Progress


@pytest.fixture
def app():
    place = f"memory://{uuid()}"
    with Celery("results", broker=place, backend=place) as app:
        yield app


def store(app, task_id, state=states.SUCCESS, result=None, parent_id=None, children=()):
    request = Context(id=task_id, parent_id=parent_id)
    request.children.extend(children)
    meta = build_meta(task_id, state, result, now=datetime.now(UTC), request=request)
    app.backend.store([Record(id=task_id, state=state, meta=encode_meta(meta))])


def test_a_task_says_how_far_it_is_and_whoever_has_its_id_reads_it(app):
    read = []

    @app.task(bind=True)
    def load(self):
        self.progress(3, 12, "reading")
        read.append(app.AsyncResult(self.request.id).progress)

    load.apply()
    assert read == [Progress(3, 12, "reading")]
    assert read[0].fraction == 0.25
    assert read[0].to_dict() == {"current": 3, "total": 12, "message": "reading", "fraction": 0.25}


def test_progress_is_none_where_nothing_was_said_and_all_at_the_end(app):
    assert app.AsyncResult("nobody").progress is None
    store(app, "a", "MINE", {"page": 3})
    store(app, "b", states.SUCCESS, 5)
    store(app, "c", states.FAILURE, KeyError("c"))
    assert [app.AsyncResult(each).progress for each in "abc"] == [None, Progress(1, 1), None]
    assert (Progress(5, 0).fraction, Progress(9, 3).fraction) == (0.0, 1.0)


def workflow(app):
    """A task, then a group of two, then what follows them; the second member runs."""
    store(app, "first", result=1)
    store(app, "a", result=2)
    store(app, "b", "PROGRESS", {"current": 1, "total": 4, "message": "page 1"})
    first = app.AsyncResult("first")
    header = app.GroupResult("g", [app.AsyncResult("a", parent=first), app.AsyncResult("b", parent=first)], parent=first)
    return app.AsyncResult("body", parent=header)


def test_a_workflow_is_looked_at_while_it_runs(app):
    tree = workflow(app).tree()
    assert (tree.kind, tree.state, tree.progress) == ("chain", "STARTED", Progress(2, 4))
    assert [each.kind for each in tree.members] == ["task", "group", "task"]
    assert [(each.id, each.state) for each in tree.tasks()] == [
        ("first", "SUCCESS"), ("a", "SUCCESS"), ("b", "PROGRESS"), ("body", "PENDING"),
    ]  # fmt: skip
    assert tree.members[1].members[1].progress == Progress(1, 4, "page 1")
    assert json.loads(as_json(tree)) == tree.to_dict()
    assert as_text(tree).splitlines() == [
        "chain body STARTED 2/4",
        "├─ task first SUCCESS",
        "├─ group g STARTED 1/2",
        "│  ├─ task a SUCCESS",
        "│  └─ task b PROGRESS 1/4 page 1",
        "└─ task body PENDING",
    ]


def test_a_workflow_is_drawn(app):
    tree = workflow(app).tree()
    drawn = as_dot(tree)
    assert drawn.startswith("digraph workflow {")
    for edge in ('"first" -> "a"', '"first" -> "b"', '"a" -> "body"', '"b" -> "body"'):
        assert edge in drawn
    picture = ET.fromstring(as_svg(tree))
    kinds = [each.tag.rpartition("}")[2] for each in picture.iter()]
    assert (kinds.count("rect"), kinds.count("path")) == (4, 4)


def test_what_a_task_sent_is_below_it_and_what_was_before_is_found_by_the_id_alone(app):
    store(app, "child", result=2, parent_id="root")
    store(app, "root", result=1, children=[app.AsyncResult("child"), app.GroupResult("g", [app.AsyncResult("x"), app.AsyncResult("y")])])
    tree = app.AsyncResult("root").tree()
    assert [each.id for each in tree.tasks()] == ["root", "child", "x", "y"]
    assert [each.kind for each in tree.members] == ["task", "group"]
    assert [each.id for each in app.AsyncResult("child").tree().tasks()] == ["root", "x", "y", "child"]


def test_results_are_followed_to_what_they_sent(app):
    store(app, "leaf", result=3)
    store(app, "root", result=1, children=[app.AsyncResult("middle")])
    root = app.AsyncResult("root")
    with pytest.raises(IncompleteStream, match="middle"):
        list(root.iterdeps())
    assert [node.id for _, node in root.iterdeps(intermediate=True)] == ["root", "middle"]
    store(app, "middle", result=2, children=[app.AsyncResult("leaf")])
    assert [(node.id, value) for node, value in root.collect()] == [("root", 1), ("middle", 2), ("leaf", 3)]
    assert root.get_leaf() == 3
    assert [node.id for node in root.graph.topsort()] == ["leaf", "middle", "root"]


def test_a_graph_of_dependencies_knows_rings():
    graph = DependencyGraph([("a", ["b", "c"]), ("b", ["c"]), ("c", [])])
    assert (graph.topsort(), graph.valency_of("a"), graph.edges(), len(graph)) == (["c", "b", "a"], 3, ["b", "c"], 3)
    graph.add_edge("c", "a")
    with pytest.raises(ValueError, match="depends on itself"):
        graph.topsort()


def test_honest_states_tell_an_unknown_id_from_one_that_was_sent(app):
    app.conf.result_honest_states = True
    sent = app.send_task("proj.add")
    assert (sent.state, sent.exists()) == ("PENDING", True)
    assert (app.AsyncResult("nobody").state, app.AsyncResult("nobody").exists()) == ("UNKNOWN", False)
