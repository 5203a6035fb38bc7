"""The admin of periodic tasks as an operator uses it: a real browser, a site, `umbel beat` and a worker."""

import contextlib
import re
import time

import pytest
from playwright.sync_api import sync_playwright
from tests.conftest import absent
from tests.django.conftest import Example
from tests.processes import wait_for
from tests.servers import CHROMIUM, find_binary

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
LIST = "/admin/umbel_periodic/periodictask/"
ADD = "myapp_infra.tasks.add"
MAKE = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_superuser("boss", "boss@example.com", "let me in")
from umbel.contrib.django.periodic.models import PeriodicTask
PeriodicTask.objects.bulk_create(PeriodicTask(name=f"report {n:03}", task="reports.make", every=1, unit="days") for n in range(120))
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    example = Example(tmp_path_factory.mktemp("site"), DJANGO_SETTINGS_MODULE="periodic_settings")
    example.shell(MAKE, DJANGO_SETTINGS_MODULE="periodic_settings")
    return example


@pytest.fixture(scope="module")
def running(example):
    """The scheduler's log and the worker's, while a site answers."""
    with (
        example.run("umbel", "-A", "mysite", "beat", "-l", "INFO") as beat,
        example.run("umbel", "-A", "mysite", "worker", "-l", "INFO", "-P", "threads", "-c", "1") as worker,
        example.site("--insecure"),  # so it serves the admin's scripts itself
    ):
        beat.waits_to_print(" leads (term", 30)
        worker.waits_to_print(" ready.", 30)
        yield beat, worker


@pytest.fixture(scope="module")
def browser():
    path = find_binary(CHROMIUM)
    if path is None:
        absent(CHROMIUM)
    with sync_playwright() as playwright, contextlib.closing(playwright.chromium.launch(executable_path=path, args=FLAGS)) as browser:
        yield browser


class Operator:
    """Somebody before a browser, who has logged in."""

    def __init__(self, browser, url, language):
        self.url, self.complaints = url, []
        self.page = browser.new_context(locale=language).new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.visit("/admin/")
        self.page.fill("#id_username", "boss")
        self.page.fill("#id_password", "let me in")
        self.press("#login-form [type=submit]")

    def _console(self, message):
        if message.type in ("error", "warning") and not message.location["url"].endswith("/favicon.ico"):  # which the example has not
            self.complaints.append(message.text)

    def visit(self, path):
        self.page.goto(self.url + path)

    def press(self, selector):
        with self.page.expect_navigation():
            self.page.click(selector)

    def text(self):
        return self.page.inner_text("body")

    def told(self):
        return " ".join(self.page.locator(".messagelist li").all_inner_texts())

    def errors(self):
        return self.page.locator(".errorlist li").all_inner_texts()

    def names(self):
        return self.page.locator("#result_list .field-name").all_inner_texts()

    def shown(self):
        """The fields of schedules that are to be seen."""
        return [name for name in ("every", "unit", "crontab", "timezone", "clocked_at_0") if self.page.is_visible(f"#id_{name}")]

    def add(self, name, args="[1, 2]", task=ADD, one_off=False, **fields):
        self.visit(LIST + "add/")
        if one_off:
            self.page.click("summary >> nth=0")
            self.page.check("#id_one_off")
        self.fill(name=name, task=task, args=args, **fields)
        self.press("[name=_save]")

    def fill(self, kind="interval", unit="seconds", **fields):
        self.page.select_option("#id_kind", kind)
        if kind == "interval":
            self.page.select_option("#id_unit", unit)
        for field, value in fields.items():
            self.page.fill(f"#id_{field}", value)

    def open(self, name):
        self.visit(f"{LIST}?q={name}")
        self.press(f"#result_list th a:text-is('{name}')")

    def act(self, action, *names):
        for name in names:
            self.page.locator("#result_list tr", has_text=name).locator("input.action-select").check()
        self.page.select_option("select[name=action]", action)
        self.press("button[name=index]")


@pytest.fixture(scope="module")
def logged_in(running, example, browser):
    return Operator(browser, example.url, "en-US")


@pytest.fixture
def operator(logged_in):
    yield logged_in
    assert logged_in.complaints == []


def test_an_operator_adds_each_kind_of_task_and_sees_its_next_five_runs(operator):
    operator.visit(LIST + "add/")
    for kind, fields in (("crontab", ["crontab", "timezone"]), ("clocked", ["clocked_at_0"]), ("interval", ["every", "unit"])):
        operator.page.select_option("#id_kind", kind)
        assert operator.shown() == fields
    assert operator.page.locator("#known-timezone option[value='Asia/Shanghai']").count() == 1
    operator.add("in Berlin", kind="crontab", crontab="30 9 * * *", timezone="Europe/Berlin")
    assert "“in Berlin” was added successfully" in operator.told()
    operator.add("new year", kind="clocked", clocked_at_0="2099-12-31", clocked_at_1="23:59:00")
    operator.add("twice a day", every="12", unit="hours")
    operator.visit(LIST + "?q=a+day")
    assert "every 12 hours" in operator.text()
    operator.open("in Berlin")
    runs = operator.page.inner_text(".field-next_runs .readonly").strip().split("\n")
    assert len(runs) == 5
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d 1[56]:30:00 CST", run) for run in runs)  # the site is in Shanghai


def test_what_is_wrong_is_said_at_its_field(operator):
    operator.add("wrong", args="[1,", kind="crontab", crontab="30 24 * * *", timezone="Europe/Brelin")
    expected = ("Hour cannot be 24.", "no time zone Europe/Brelin", "look at line 1, column 4")
    assert [said in error for said, error in zip(expected, operator.errors(), strict=True)] == [True] * 3
    assert operator.page.input_value("#id_args") == "[1,"
    operator.fill(kind="crontab", crontab="30 23 * * *", timezone="Europe/Berlin", args="[]")
    operator.press("[name=_save]")
    assert "It cannot be sent: myapp_infra.tasks.add(x, y) cannot be called so" in operator.told()


def test_the_list_is_filtered_searched_and_switched(operator):
    operator.visit(LIST + "?q=report+00")
    assert operator.names() == [f"report {number:03}" for number in (*range(10), 100)]
    operator.act("disable", "report 003", "report 004")
    assert "2 periodic tasks are off." in operator.told()
    operator.press("#changelist-filter a:text-is('No')")
    assert operator.names() == ["report 003", "report 004"]
    operator.act("enable", "report 003")
    assert "1 periodic tasks are on." in operator.told()
    assert operator.names() == ["report 004"]
    operator.visit(LIST)
    assert len(operator.names()) == 100
    assert operator.page.evaluate(
        "(table => table.scrollWidth <= table.clientWidth)(document.querySelector('.results'))"
    )  # no column is cut off
    operator.press(".paginator a:text-is('2')")
    assert "report 119" in operator.names()


def test_a_task_runs_once_and_now_and_its_last_run_is_shown_with_result_and_state(operator, running):
    beat, worker = running
    operator.add("one time", every="1", one_off=True)
    worker.waits_to_print(" succeeded in ", 10)

    def ended():
        operator.open("one time")
        return "SUCCESS" in operator.page.inner_text(".field-last_run")

    wait_for(ended, 10)
    assert operator.page.inner_text(".field-last_result .readonly").endswith("SUCCESS 3")
    assert (operator.page.inner_text(".field-runs .readonly"), operator.page.inner_text(".field-next_runs .readonly")) == ("1", "-")
    before = worker.log().count(" succeeded in ")
    operator.visit(LIST + "?q=one+time")
    operator.act("run_now", "one time")
    assert "Sent one time: " in operator.told()
    wait_for(lambda: worker.log().count(" succeeded in ") > before, 10, worker.tail)
    assert beat.log().count("Sending due task one time ") == 1


def test_an_edit_takes_effect_within_two_seconds_and_a_worker_runs_it(operator, running):
    beat, worker = running
    operator.add("live", args="[20, 22]", every="1", unit="days")
    operator.open("live")
    assert operator.page.input_value("#id_every") == "1"
    operator.fill(every="1", unit="seconds")
    operator.press("[name=_save]")
    saved = time.monotonic()
    wait_for(lambda: "Sending due task live " in beat.log(), 3.5, beat.tail)  # its own second included
    wait_for(lambda: worker.log().count("s: 42") > 0, 10 - (time.monotonic() - saved), worker.tail)
    operator.visit(LIST + "?q=live")
    operator.act("delete_selected", "live")
    operator.press("#content [type=submit]")
    assert "Successfully deleted 1 periodic task." in operator.told()


def test_everything_is_there_in_chinese(running, example, browser):
    operator = Operator(browser, example.url, "zh-CN")
    operator.add("发送日报", args="[1,", kind="crontab", crontab="0 25 * * *")
    assert operator.errors()[0].startswith("小时不能是 25。可以是 0-23")
    assert "请检查第 1 行第 4 列。" in operator.errors()[1]
    operator.fill(every="5", unit="minutes", args='["日报", 1]')
    operator.press("[name=_save]")
    operator.visit(LIST + "?q=日报")
    assert "每 5 分钟" in operator.text()
    operator.open("发送日报")
    assert operator.page.input_value("#id_args") == '["日报", 1]'
    for text in ("接下来的运行", "周期任务", "更多规则"):
        assert text in operator.text()
    assert operator.complaints == []


MANY = """
from umbel.contrib.django.periodic.models import PeriodicTask
PeriodicTask.objects.bulk_create(
    (PeriodicTask(name=f"many {n:06}", task=f"reports.make{n % 7}", args=[n], every=n % 90 + 1, unit="hours") for n in range(100_000)), 5000
)
"""
PAGES = ["", "?p=500", "?q=many+0999", "?enabled__exact=1&kind__exact=interval", "?o=-1", "?o=2"]
TOOK = "() => { const page = performance.getEntriesByType('navigation')[0]; return page.loadEventEnd - page.startTime }"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_page_of_a_list_of_a_hundred_thousand_is_there_within_half_a_second(operator, example):
    example.shell(MANY, deadline=120, DJANGO_SETTINGS_MODULE="periodic_settings")
    best = {}
    for _ in range(20):  # of several, as the machine may be busy with something else
        for page in PAGES:
            operator.visit(LIST + page)
            took = wait_for(lambda: operator.page.evaluate(TOOK), 20)
            best[page] = min(took, best.get(page, took))
        if max(best.values()) <= 500:
            break
    assert max(best.values()) <= 500, best
