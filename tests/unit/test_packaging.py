"""What a user installs is what stands in the repository."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

CODE_AND_DATA = ("lowrank_bench", "methods")
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the wheel that is built from the sdist, so a file must be in both."""
    clone, unpacked, built = (tmp_path_factory.mktemp(name) for name in ("clone", "unpacked", "built"))
    for name in CODE_AND_DATA:
        shutil.copytree(pytestconfig.rootpath / name, clone / name, ignore=JUNK)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(pytestconfig.rootpath / name, clone)
    with tarfile.open(_build("sdist", clone, built)) as sdist:
        sdist.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4 on
    (source,) = unpacked.iterdir()
    with zipfile.ZipFile(_build("wheel", source, built)) as archive:
        return set(archive.namelist())


def _build(kind: str, source: Path, target: Path) -> Path:
    hook = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    done = subprocess.run([sys.executable, "-c", hook], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def test_the_wheel_holds_every_file(wheel: set[str], pytestconfig: pytest.Config) -> None:
    root = pytestconfig.rootpath
    files = {f for name in CODE_AND_DATA for f in (root / name).rglob("*") if f.is_file() and f.suffix != ".pyc"}
    names = {f.relative_to(root).as_posix() for f in files}
    installed = {f"lowrank_bench/{name}" if name.startswith("methods/") else name for name in names}
    assert installed == {name for name in wheel if ".dist-info/" not in name}
    assert "lowrank_bench/methods/tucker.py" in installed


def test_whoever_installs_the_tests_gets_what_they_would_else_skip(pytestconfig: pytest.Config) -> None:
    extras = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (others,) = [name for name in extras["test"] if name.startswith("lowrank-bench[")]
    assert set(others.removeprefix("lowrank-bench[").removesuffix("]").split(",")) == {"cluster", "runtimes"}
    wanted = (pytestconfig.rootpath / ".ci" / "run").read_text()
    assert all(package in wanted for package in ("dataset-fashion-mnist", "chromium"))


def test_the_citation_has_the_version_and_licence_of_the_package(pytestconfig: pytest.Config) -> None:
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]
    citation = (pytestconfig.rootpath / "CITATION.cff").read_text().splitlines()
    assert f"version: {project['version']}" in citation
    assert f"license: {project['license']}" in citation
