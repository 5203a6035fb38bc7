"""What the page about workflows shows works."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "build-workflows.md"


def test_the_examples_of_the_page_run(capsys):
    names = {"__name__": "shop"}
    exec("import umbel; umbel", names)
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
        names["app"].conf.task_always_eager = True  # what is sent runs at once
    names["app"].close()
    assert capsys.readouterr().out.count("failed: ") == 3
    assert names["result"].get() == 6
