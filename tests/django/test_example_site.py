"""The example as its users run it: a site and a worker, real HTTP, a real SMTP server."""

import email.message
import re
import signal
from collections.abc import Iterator
from email.header import decode_header, make_header

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from tests.processes import Running, wait_for
from tests.servers import free_port


class Inbox(Message):
    """Keeps the mails that an SMTP server receives."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[email.message.Message] = []

    def handle_message(self, message: email.message.Message) -> None:
        self.mails.append(message)

    def to(self, address: str) -> list[email.message.Message]:
        return [mail for mail in list(self.mails) if mail["To"] == address]


@pytest.fixture(scope="module")
def mail_server() -> Iterator[tuple[Inbox, int]]:
    handler = Inbox()
    port = free_port()
    server = Controller(handler, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield handler, port
    finally:
        server.stop()


@pytest.fixture
def inbox(mail_server) -> Inbox:
    """The mails that arrive during one test."""
    mail_server[0].mails.clear()
    return mail_server[0]


@pytest.fixture(scope="module")
def worker(example, mail_server) -> Iterator[Running]:
    with example.worker("-P", "solo", EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(mail_server[1])) as worker:
        yield worker


@pytest.fixture(scope="module")
def site(example, worker):
    with example.site():
        yield example


def mail(to, subject="Hello"):
    return {"subject": subject, "message": "It works.", "recipient_list": [to]}


def test_the_mail_of_a_view_arrives_at_an_smtp_server(site, inbox, worker):
    status, answer = site.call("POST", "/api/send-email/", mail("li@example.com"))
    assert status == 202
    done = site.result(answer["task_id"])
    assert (done["state"], done["result"]) == ("SUCCESS", None), worker.tail()
    [arrived] = inbox.to("li@example.com")
    assert arrived["Subject"] == "Hello"
    assert arrived.get_payload().strip() == "It works."


def test_a_mail_in_chinese_arrives_as_it_was_written(site, inbox):
    _, answer = site.call("POST", "/api/send-email/", mail("wang@example.com", "你好 世界"))
    site.result(answer["task_id"])
    [arrived] = inbox.to("wang@example.com")
    assert str(make_header(decode_header(arrived["Subject"]))) == "你好 世界"


def test_a_rolled_back_transaction_sends_nothing(site, inbox):
    status, _ = site.call("POST", "/register/?fail=1", {"username": "gone", "email": "gone@example.com"})
    assert status == 500
    # What was sent later has arrived, so an earlier message would have arrived too.
    _, answer = site.call("POST", "/api/send-email/", mail("later@example.com"))
    site.result(answer["task_id"])
    assert len(inbox.to("later@example.com")) == 1
    assert inbox.to("gone@example.com") == []


def test_a_committed_transaction_sends_once(site, inbox):
    status, answer = site.call("POST", "/register/", {"username": "zhao", "email": "zhao@example.com"})
    assert (status, answer["in_atomic"]) == (200, True)
    assert site.result(answer["task_id"])["state"] == "SUCCESS"
    _, later = site.call("POST", "/api/send-email/", mail("last@example.com"))
    site.result(later["task_id"])
    assert len(inbox.to("zhao@example.com")) == 1


def test_a_view_may_wait_for_a_result(site):
    status, answer = site.call("GET", "/api/add/?x=2&y=3")
    assert (status, answer["result"], answer["state"]) == (200, 5, "SUCCESS")


def test_the_worker_sees_the_rows_of_the_site(site):
    site.call("POST", "/register/", {"username": "sun", "email": "sun@example.com"})
    _, answer = site.call("GET", "/api/user-count/")
    assert answer["here"] == answer["in_worker"] > 0


def test_a_failure_is_told_with_its_exception(site):
    _, answer = site.call("POST", "/api/boom/")
    done = site.result(answer["task_id"])
    assert (done["state"], done["result"]) == ("FAILURE", "ValueError('kaput')")


def test_a_task_that_asks_for_a_retry_is_run_again(site):
    _, answer = site.call("POST", "/api/flaky/?n=1")
    done = site.result(answer["task_id"])
    assert (done["state"], done["result"]) == ("SUCCESS", {"attempts": 2})


def test_an_unknown_task_id_is_pending(site):
    _, answer = site.call("GET", "/api/result/11111111-1111-1111-1111-111111111111/")
    assert (answer["state"], answer["ready"], answer["result"]) == ("PENDING", False, None)


STAMP = r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: "


def test_the_worker_logs_a_task_as_celery_does(site, worker):
    _, answer = site.call("POST", "/api/send-email/", mail("log@example.com"))
    task_id = answer["task_id"]
    site.result(task_id)
    task = rf"Task myapp_infra\.tasks\.send_email_task\[{task_id}\]"
    worker.waits_to_print(f"send_email_task[{task_id}] succeeded")
    log = worker.log()
    assert re.search(rf"{STAMP}INFO/MainProcess\] {task} received$", log, re.MULTILINE), worker.tail()
    assert re.search(rf"{STAMP}WARNING/MainProcess\] To: log@example\.com$", log, re.MULTILINE), worker.tail()
    assert re.search(rf"{STAMP}INFO/MainProcess\] {task} succeeded in \d+\.\d+(e-\d+)?s: None$", log, re.MULTILINE), worker.tail()


def test_a_task_logger_names_the_task_and_its_id(site, worker):
    _, answer = site.call("POST", "/api/login/", {"username": "li"})
    site.result(answer["task_id"])
    line = rf"{STAMP}INFO/MainProcess\] myapp_system\.tasks\.login_log_task\[{answer['task_id']}\]: login li$"
    assert re.search(line, worker.log(), re.MULTILINE), worker.tail()


def test_a_failure_is_logged_with_its_traceback(site, worker):
    _, answer = site.call("POST", "/api/boom/")
    site.result(answer["task_id"])
    worker.waits_to_print(f"boom[{answer['task_id']}] raised unexpected: ValueError('kaput')")
    wait_for(lambda: 'raise ValueError("kaput")' in worker.log(), why=worker.tail)


def test_the_banner_names_app_transport_results_queue_and_tasks(worker, example):
    banner = worker.log()
    for text in (".> app:", "mysite:0x", ".> transport:", ".> results:", ".> concurrency:", "(solo)", "exchange=celery(direct) key=celery"):
        assert text in banner
    for name in ("accounts.tasks.count_users", "myapp_infra.tasks.send_email_task", "myapp_system.tasks.login_log_task"):
        assert f"  . {name}\n" in banner
    if not example.env["BROKER_URL"]:
        assert f"{example.folder}/umbel.sqlite3" in banner


def test_a_task_sent_without_a_worker_waits_for_one_and_a_warm_stop_exits_with_zero(example, tmp_path):
    with example.site(MAIL_DIR=str(tmp_path)):
        with example.worker("-P", "solo", "-n", "first@%h") as first:
            first.send(signal.SIGTERM)
            assert first.exit_code() == 0, first.tail()
        # The module's own worker consumes the default queue, so this goes where nobody listens yet.
        sent = example.shell("from myapp_infra.tasks import add; print(add.apply_async((20, 22), queue='later').id)")
        task_id = sent.split()[-1]
        assert example.call("GET", f"/api/result/{task_id}/")[1]["state"] == "PENDING"
        with example.worker("-P", "solo", "-Q", "later", "-n", "second@%h"):
            assert example.result(task_id)["result"] == 42
