"""What the pages say, held against what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_to_a_file_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_python_example_is_python(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_every_file_that_contributing_tells_to_read_exists():
    named = re.findall(r"`((?:src|examples)/[\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) == 10
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_shows_the_app_of_the_example(name):
    example = (ROOT / "examples" / "mysite" / "mysite" / "celery.py").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    code = re.sub(r"  # noqa.*", "", example)
    assert any(ast.dump(ast.parse(block)) == ast.dump(ast.parse(code)) for block in blocks)


def test_both_readmes_have_the_same_commands():
    def commands(name: str) -> list[str]:
        blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
        return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]

    assert commands("README.md") == commands("README.zh-CN.md")
