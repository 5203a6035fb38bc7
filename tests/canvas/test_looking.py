"""Who has the id of a result sees the whole workflow, also what has not started."""

import uuid

import pytest

from umbel import Umbel, chain, chord, group
from umbel.cli.graph import as_dot, as_svg, as_text
from umbel.contrib.testing.worker import start_worker
from umbel.joining import allow_join_result
from umbel.result import GroupResult


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis), pytest.param("postgres", marks=pytest.mark.postgres)]
)
def backend(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url"), {"schema": request.getfixturevalue("postgres_schema")}
    if request.param == "redis":
        return request.getfixturevalue("redis_url"), {"global_keyprefix": request.getfixturevalue("redis_prefix")}
    return f"sqlite:///{tmp_path}/umbel.sqlite3" if request.param == "sqlite" else f"memory://{uuid.uuid4().hex}", {}


@pytest.fixture
def app(backend):
    url, options = backend
    with Umbel(
        "look", broker=f"memory://{uuid.uuid4().hex}", backend=url, set_as_current=False, result_backend_transport_options=options
    ) as app:
        yield app


@pytest.fixture
def t(app):
    return app.task(name="t", typing=False)(lambda *args: 1)


@pytest.fixture
def fails(app):
    return app.task(name="fails", typing=False)(lambda *args: 1 / 0)


def named(t, name):
    return t.s().set(task_id=name)


def seen(app, task_id):
    """The workflow as text, as another process sees it."""
    return as_text(app.AsyncResult(task_id).tree()).splitlines()


def run(app, *results):
    with start_worker(app), allow_join_result():
        for each in results:
            each.get(timeout=60, propagate=False)
        assert app.send_task("celery.ping").get(timeout=60) == "pong"


def test_a_chord_in_a_chain_is_seen_whole_before_anything_has_run_and_after(app, t):
    result = chain(named(t, "a"), chord([named(t, "b"), chain(named(t, "c"), named(t, "d"))], named(t, "e")), named(t, "f")).apply_async()
    group_id = result.parent.parent.id
    assert seen(app, "f") == [
        "chain f PENDING 0/6",
        "├─ t a PENDING",
        f"├─ group {group_id} PENDING 0/3",
        "│  ├─ t b PENDING",
        "│  └─ chain d PENDING 0/2",
        "│     ├─ t c PENDING",
        "│     └─ t d PENDING",
        "├─ t e PENDING",
        "└─ t f PENDING",
    ]
    run(app, result)
    assert [
        line.replace("SUCCESS", "PENDING").replace("6/6", "0/6").replace("3/3", "0/3").replace("2/2", "0/2") for line in seen(app, "f")
    ] == [
        "chain f PENDING 0/6",
        "├─ t a PENDING",
        f"├─ group {group_id} PENDING 0/3",
        "│  ├─ t b PENDING",
        "│  └─ chain d PENDING 0/2",
        "│     ├─ t c PENDING",
        "│     └─ t d PENDING",
        "├─ t e PENDING",
        "└─ t f PENDING",
    ]
    for task_id in "abcde":
        assert seen(app, task_id) == seen(app, "f")


def test_the_new_id_of_a_result_finds_all_members_of_nested_chords(app, t):
    inner = chord([t.s(), t.s()], t.s())
    result = chord([inner, t.s(), t.s().set(queue="other")], t.s()).apply_async()
    tree = app.AsyncResult(result.id).tree()
    assert [each.kind for each in tree.members] == ["group", "task"]
    header, body = tree.members
    assert [each.kind for each in header.members] == ["chain", "task", "task"]
    assert [each.kind for each in header.members[0].members] == ["group", "task"]
    assert [each.id for each in header.members[1:]] == [each.id for each in result.parent.results[1:]]
    assert (header.id, body.id, tree.progress.total) == (result.parent.id, result.id, 6)
    assert result.tree() == tree
    assert '"' + header.members[1].id + '" -> "' + body.id + '"' in as_dot(tree)
    assert as_svg(tree).count("<rect") == 6


def test_a_failure_is_seen_with_all_that_fails_with_it(app, t, fails):
    result = chain(chord([fails.s(), t.s()], t.s()), t.s()).apply_async()
    run(app, result)
    tree = app.AsyncResult(result.id).tree()
    assert (tree.state, [each.state for each in tree.members]) == ("FAILURE", ["FAILURE"] * 3)
    assert [each.name for each in tree.tasks()] == ["fails", "t", "t", "t"]


def test_groups_at_the_end_and_of_chains_are_seen_by_their_id(app, t):
    behind = (t.s() | group(t.s(), t.s() | t.s())).apply_async()
    chains = group(chain(t.s(), t.s()), t.s()).apply_async()
    for result, kinds, count in ((behind, "task group", 4), (chains, "task chain", 3)):
        tree = app.AsyncResult(result.id).tree()
        assert sorted(each.kind for each in tree.members) == sorted(kinds.split())
        assert len(list(tree.tasks())) == count
        assert {each.id for each in tree.tasks()} == {each.id for each in result.tree().tasks()}


def test_callbacks_stand_below_the_task_that_they_follow(app, t):
    result = t.apply_async(link=[t.s(), chain(t.s(), t.s())])
    tree = app.AsyncResult(result.id).tree()
    assert (tree.id, [each.kind for each in tree.members]) == (result.id, ["task", "chain"])
    assert {each.state for each in tree.tasks()} == {"PENDING"}


def test_what_replaces_a_task_stands_before_it(app, t):
    @app.task(name="plan", bind=True)
    def plan(self):
        raise self.replace(chord([t.s(), t.s()], t.s()))

    result = chain(t.si(), plan.si(), t.s()).apply_async()
    alone = plan.delay()
    run(app, result, alone)
    tree = app.AsyncResult(result.id).tree()
    assert [each.kind for each in tree.members] == ["task", "group", "task", "task"]
    assert [each.id for each in tree.members[2:]] == [result.parent.id, result.id]
    assert tree.progress.current == tree.progress.total == 5
    assert [each.kind for each in app.AsyncResult(alone.id).tree().members] == ["group", "task"]
    assert (result.get(), alone.get()) == (1, 1)


def test_an_id_that_is_given_again_finds_the_newer_workflow(app, t):
    def send():
        return chain(t.s(), t.s(), t.s()).apply_async(task_id="report")

    first, second = send(), send()
    ids = {each.id for each in app.AsyncResult("report").tree().tasks()}
    assert ids == {"report", second.parent.id, second.parent.parent.id}
    assert first.parent.id not in ids


def test_a_join_says_how_far_tasks_are_whose_results_are_ignored(app):
    quiet = app.task(name="quiet", ignore_result=True, typing=False)(lambda *args: 1)
    last = app.task(name="last")(len)
    result = chord([quiet.s(), quiet.s()], last.s()).apply_async()
    run(app, result)
    header, _ = app.AsyncResult(result.id).tree().members
    assert header.state == "SUCCESS"


def test_a_saved_group_of_chains_is_seen_with_all_steps(app, t):
    result = group(chain(t.s(), t.s()), t.s()).apply_async()
    result.save()
    tree = GroupResult.restore(result.id, app=app).tree()
    assert [each.kind for each in tree.members] == ["chain", "task"]


def test_what_a_task_of_a_workflow_sent_stands_below_it(app, t):
    @app.task(name="sends", typing=False)
    def sends(*args):
        t.delay()

    result = chain(t.s(), sends.s(), t.si()).apply_async()
    run(app, result)
    tree = app.AsyncResult(result.id).tree()
    assert [each.name for each in tree.members[1].members] == [None]
    assert len(list(tree.tasks())) == 4
