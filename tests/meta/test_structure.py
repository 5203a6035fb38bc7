"""The guards of the design: rows, cycles, sizes, and what importing costs."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "umbel"

# A module imports from its own row and from the rows above it. What is not named here fails the test: give it a row.
ROWS = [
    {
        "exceptions", "states", "clock", "forks", "ids", "config", "config_sources", "config_values", "settings_table",
        "retry", "routing", "signals", "logs", "moments", "later", "cron",
    },
    {"wire"},
    {"flow", "broker", "backend", "bus", "leases", "schedule_store", "state", "watch"},
    {"drivers"},
    {
        "attempts", "breaker", "canvas", "context", "current", "meta", "arguments", "periodic", "publish", "queues", "batching", "commit",
        "connections", "broker_connection", "broker_urls", "control", "discovery", "eager", "joining", "letters", "once", "priorities",
        "registry", "result", "result_wait", "retrying", "said", "schedules", "shared", "tally", "task", "using", "app_settings", "app",
        "__init__",
    },
    {"execution", "pools"},
    {"worker", "supervisor", "beat"},
    {"cli", "__main__", "testing", "contrib", "utils"},
]  # fmt: skip

# What exceeds a limit, with the reason.
LONG_MODULES: dict[str, str] = {
    "settings_table.py": "a table: one line for each setting",
}
LONG_FUNCTIONS: dict[str, str] = {
    "worker/worker.py:_serve": "the worker is a page: its services stand in the order in which they start and stop",
}


@cache
def modules() -> dict[str, ast.Module]:
    """All modules of umbel by their path below `src/umbel`."""
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def name_of(path: str) -> str:
    parts = ["umbel", *path.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: str, *, at_import_time: bool = False) -> set[str]:
    """The modules of umbel that a module imports, those inside functions and under TYPE_CHECKING included, unless told otherwise."""
    names = {name_of(other) for other in modules()}
    found = set()
    for node in ast.walk(modules()[path]) if not at_import_time else top_level(modules()[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "umbel"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "umbel" and node.level == 0:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in names else str(node.module))
    return found & names


def top_level(tree: ast.Module):
    for node in tree.body:
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node


def row_of(module: str) -> int:
    part = module.split(".")[1] if "." in module else "__init__"
    rows = [number for number, row in enumerate(ROWS) if part in row]
    assert rows, f"{module} has no row: add {part!r} to ROWS in {__file__}"
    return rows[0]


@pytest.mark.parametrize("path", modules())
def test_a_module_imports_only_from_its_own_row_and_the_rows_above(path):
    module = name_of(path)
    wrong = {other for other in imports_of(path) if row_of(other) > row_of(module)}
    assert not wrong, f"{module} (row {row_of(module)}) imports {', '.join(sorted(wrong))} from a lower row"


def test_no_modules_import_each_other_in_a_ring():
    graph = {name_of(path): imports_of(path, at_import_time=True) for path in modules()}
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in graph[module] - {module}:
                visit(other, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_drivers_do_not_see_each_other():
    for path in modules():
        if path.startswith("drivers/") and path.count("/") > 1:
            folder = path.split("/")[1]
            others = {
                name for name in imports_of(path)
                if name.startswith("umbel.drivers.") and name.split(".")[2] != folder and (SOURCE / "drivers" / name.split(".")[2]).is_dir()
            }  # fmt: skip
            assert not others, f"{path} imports {others}"


@pytest.mark.parametrize("path", modules())
def test_a_module_has_at_most_400_lines(path):
    lines = len((SOURCE / path).read_text().splitlines())
    assert lines <= 400 or path in LONG_MODULES, f"{path} has {lines} lines"


@pytest.mark.parametrize("path", modules())
def test_a_function_has_at_most_40_lines(path):
    for node in ast.walk(modules()[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.body[0].lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
            assert lines <= 40 or f"{path}:{node.name}" in LONG_FUNCTIONS, f"{path}:{node.name} has {lines} lines"


def test_importing_umbel_imports_no_driver_and_no_framework():
    code = "import sys, umbel; print(*{'redis', 'sqlalchemy', 'sqlite3', 'django', 'rich', 'click', 'yaml', 'kombu'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == ""


def test_third_party_packages_of_drivers_are_imported_only_in_their_folders():
    for path, tree in modules().items():
        for node in ast.walk(tree):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            for name in names:
                package = name.split(".")[0]
                assert package != "redis" or path.startswith("drivers/redis/"), f"{path} imports {name}"
                assert package != "sqlalchemy" or path.startswith("drivers/sql/"), f"{path} imports {name}"
                assert package != "pika" or path.startswith("drivers/amqp/"), f"{path} imports {name}"
                assert package != "sqlite3" or path.startswith("drivers/sqlite/"), f"{path} imports {name}"
                assert package != "django" or path.startswith(("contrib/django/", "commit.py", "using.py")), f"{path} imports {name}"
