"""What the pages promise exists: tests, settings, commands, options, signals, exceptions."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.processes import Running, wait_for
from tests.servers import free_port

from umbel import exceptions, signals
from umbel.cli.main import main
from umbel.config import SETTINGS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BIN = Path(sys.executable).parent
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def page(name: str) -> str:
    return (DOCS / name).read_text()


def quoted(text: str) -> set[str]:
    """What stands in back quotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


@functools.cache
def names_of_tests() -> set[str]:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src/umbel/testing").rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(path):
    named = {word for word in quoted(path.read_text()) if re.fullmatch(r"test_\w+", word)}
    assert named - names_of_tests() == set()


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_heading_leads_to_one(path):
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", path.read_text())
    assert [anchor for page, anchor in links if anchor not in anchors((path.parent / page) if page else path)] == []


def test_every_guarantee_names_a_test():
    table = page("explanation/delivery.md").partition("| Guarantee | Not guaranteed | Tested by |")[2].split("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    assert len(rows) > 10
    assert [row for row in rows if "`test_" not in row.split(" | ")[-1]] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_file_that_a_page_names_exists(path):
    files = [word for word in quoted(path.read_text()) if re.fullmatch(r"(?:src/umbel|tests|benchmarks|scripts|examples)/[\w./-]+", word)]
    short = [word for word in quoted(path.read_text()) if re.fullmatch(r"(?:\w+/)+\w+\.(?:py|lua|sql)", word)]
    roots = (ROOT, ROOT / "src/umbel", ROOT / "examples", ROOT / "examples/mysite")
    written_by_the_reader = {"shop/tasks.py"}
    gone = [word for word in {*files, *short} - written_by_the_reader if not any((root / word).exists() for root in roots)]
    assert gone == []


def test_every_setting_that_a_page_names_exists():
    known = set(SETTINGS)
    prefixes = ("task", "worker", "broker", "result")
    for path in PAGES:
        named = {word.partition("=")[0] for word in quoted(path.read_text())}
        looks = {word for word in named if re.fullmatch(rf"(?:{'|'.join(prefixes)})_[a-z_]+", word)}
        unknown = looks - known - set(vars(signals)) - {"task_id", "task_name", "task_cls", "task_class", "worker_main"}
        assert unknown == set(), path


def test_every_command_and_option_is_on_its_page():
    words = quoted(page("reference/cli.md"))
    named = {part for word in words for part in re.split(r"[\s,=]+", word)}
    missing = {option for parameter in main.params for option in parameter.opts if option not in named and option.startswith("-")}
    families = {
        f"{family} {name}": each for family in main.commands for name, each in getattr(main.commands[family], "commands", {}).items()
    }
    for name, command in {**main.commands, **families}.items():
        assert f"`umbel {name}" in page("reference/cli.md")
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
        missing |= {f"{name} {option}" for option in options - named}
    assert missing == set()


def test_every_signal_is_on_its_page():
    there_are = {name for name, value in vars(signals).items() if isinstance(value, signals.Signal)}
    assert there_are - quoted(page("reference/signals.md")) == set()


def test_a_signal_is_said_to_be_sent_exactly_if_it_is():
    sent = set()
    for file in (ROOT / "src/umbel").rglob("*.py"):
        sent |= set(re.findall(r"\b(?:signals\.)?(\w+)\.send\(", file.read_text()))
    there_are = {name for name, value in vars(signals).items() if isinstance(value, signals.Signal)}
    never = quoted(page("reference/signals.md").partition("## Never sent")[2]) & there_are
    assert never == there_are - sent


def test_every_exception_is_on_its_page():
    text = page("reference/errors.md")
    assert [name for name in exceptions.__all__ if f"`{name}`" not in text and f"`{name}(" not in text] == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_walk_through_of_a_readme_works(name, tmp_path):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    make, run = ([line.split() for line in block.splitlines()] for kind, block in blocks if kind == "sh" and "mysite" in block)
    app, load, settings, _, task, views, urls = (block for kind, block in blocks if kind == "python")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY_", "UMBEL_", "DJANGO_"))}
    env, folder = {**kept, "PYTHONUNBUFFERED": "1"}, tmp_path
    for words in make:
        if words[0] == "cd":
            folder /= words[1]
        else:
            subprocess.run([BIN / words[0], *words[1:]], cwd=folder, env=env, check=True)
    with (folder / "mysite/settings.py").open("a") as end:
        end.write(settings)
    files = {"mysite/celery.py": app, "mysite/__init__.py": load, "mysite/urls.py": urls}
    for path, text in {**files, "myapp_infra/tasks.py": task, "myapp_infra/views.py": views}.items():
        (folder / path).write_text(text)
    address = f"127.0.0.1:{free_port()}"
    worker, site, post, _ = run
    with (
        Running([str(BIN / worker[0]), *worker[1:]], cwd=folder, env=env, log=tmp_path / "worker.log") as running,
        Running([str(BIN / site[0]), *site[1:], "--noreload", address], cwd=folder, env=env, log=tmp_path / "site.log"),
    ):
        running.waits_to_print(" ready.")
        answer = wait_for(lambda: post_to(post[-1].replace("127.0.0.1:8000", address)))
        running.waits_to_print(f"Task myapp_infra.tasks.send_email_task[{answer['task_id']}] succeeded")
        # The line is printed before the result is stored.
        result = f"http://{address}/api/result/{answer['task_id']}/"
        wait_for(lambda: read_from(result) == {"state": "SUCCESS", "ready": True}, why=running.tail)


def read_from(url: str) -> dict[str, object]:
    """Read what a view answers as JSON."""
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def post_to(url: str) -> dict[str, str]:
    """Post, once the site answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as reply:
            return json.load(reply)
    except urllib.error.HTTPError:
        raise
    except OSError:
        return {}
