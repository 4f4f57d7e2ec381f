"""The arrows of the architecture hold, and what watches over them sees a violation."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def package(tmp_path: Path, pytestconfig: pytest.Config) -> Path:
    """The package as it is installed: methods inside, its contracts beside it."""
    junk = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(pytestconfig.rootpath / "lowrank_bench", tmp_path / "lowrank_bench", ignore=junk)
    shutil.copytree(pytestconfig.rootpath / "methods", tmp_path / "lowrank_bench" / "methods", ignore=junk)
    shutil.copy(pytestconfig.rootpath / "pyproject.toml", tmp_path)
    return tmp_path / "lowrank_bench"


def _lint_imports(package: Path) -> subprocess.CompletedProcess[str]:
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", linter, "--no-cache"]
    return subprocess.run(command, cwd=package.parent, capture_output=True, text=True)


def test_the_arrows_hold(package: Path) -> None:
    done = _lint_imports(package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("place", "line", "contract"),
    [
        ("decomposition/planted.py", "from lowrank_bench.compression import chain", "Arrows between rooms"),
        ("record.py", "import lowrank_bench.store", "Arrows between rooms"),
        ("planted.py", "", "Arrows between rooms"),
        ("reporting/planted.py", "", "Arrows within reporting"),
        ("reporting/frame/planted.py", "from lowrank_bench.reporting import readme", "Arrows within reporting"),
        ("decomposition/matrix.py", "from lowrank_bench.decomposition import tucker", "No two files of a room"),
        ("methods/planted.py", "from lowrank_bench.measurement import timing", "Methods import"),
        ("methods/planted.py", "from lowrank_bench.record import Record", "Methods import"),
        ("compression/planted.py", "from lowrank_bench.methods import tucker", "Nothing imports a method"),
        ("decomposition/planted.py", "from lowrank_bench import compress", "Arrows between rooms"),
    ],
)
def test_a_planted_violation_is_found(package: Path, place: str, line: str, contract: str) -> None:
    with (package / place).open("a") as module:
        module.write(f"\n{line}\n")
    done = _lint_imports(package)
    assert done.returncode == 1
    (broken,) = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert broken.startswith(contract)


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_no_file_imports_methods_under_a_second_name(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def late():\n    from methods.tucker import Tucker\n")
    files = [f for room in ("lowrank_bench", "methods", "tests") for f in (pytestconfig.rootpath / room).rglob("*.py")]
    offenders = [f for f in [*files, planted] if any(name.split(".")[0] == "methods" for name in _imported(f))]
    assert offenders == [planted]
