import os
import threading
import uuid as stdlib_uuid

from umbel import ids


def test_an_id_is_a_random_uuid_in_its_usual_spelling():
    for _ in range(200):
        text = ids.uuid()
        parsed = stdlib_uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, stdlib_uuid.RFC_4122)


def test_ids_differ():
    assert len({ids.uuid() for _ in range(1000)}) == 1000


def test_a_node_without_a_name_is_celery_at_this_host():
    assert ids.nodename(None) == f"celery@{ids.gethostname()}"
    assert ids.nodename("w1@") == f"w1@{ids.gethostname()}"


def test_a_name_without_an_at_is_a_host():
    assert ids.nodename("box") == "celery@box"
    assert ids.nodesplit("box") == (None, "box")


def test_a_node_name_may_hold_parts_of_the_host():
    assert ids.nodename("w1@%h", host="a.example.org") == "w1@a.example.org"
    assert ids.nodename("%n@%d", host="a.example.org") == "a@example.org"
    assert ids.nodename("50%%@%x", host="a") == "50%@%x"


def test_the_name_of_a_log_file_may_hold_parts_of_the_node():
    assert ids.node_format("%n-%h-%d-%p", "w1@a.b") == "w1-a.b-b-w1@a.b"
    assert ids.node_format("%n%I.log", "w1@a") == "w1.log"
    assert ids.node_format("%n%I-%i.log", "w1@a", index=2) == "w1-2-2.log"


def test_a_producer_is_known_by_its_process_and_host():
    assert ids.anon_nodename() == f"gen{os.getpid()}@{ids.gethostname()}"


def test_a_reply_id_is_one_per_process_and_app():
    here = ids.reply_oid(1)
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(ids.reply_oid(1)))
    thread.start()
    thread.join()
    assert here == ids.reply_oid(1)
    assert stdlib_uuid.UUID(here).version == 3
    assert [here] == elsewhere
    assert here != ids.reply_oid(2)
