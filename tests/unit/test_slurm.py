"""The job script that Slurm gets: one worker with a whole host, and nothing that a shell would run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

import lowrank_bench as lrb

pytest.importorskip("dask_jobqueue", reason="the extra 'cluster' is not installed")
slurm = pytest.importorskip("lowrank_bench.running.slurm")

GOOD = """
[slurm]
hosts = 4
cores = 32
memory = "64GB"
walltime = "08:00:00"
queue = "cpu"
account = "vision"
directives = ["--constraint=zen4"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "slurm.toml"
    path.write_text(text)
    return path


def test_a_job_has_a_whole_host_and_one_worker_on_it(tmp_path: Path) -> None:
    with slurm.slurm_cluster(written(tmp_path, GOOD), {"lowrank-host": 100}, submit=False) as cluster:
        script = cluster.job_script()
    head = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"-p cpu", "-A vision", "-n 1", "--cpus-per-task=32", "--exclusive", "--constraint=zen4"} <= set(head)
    assert {"-J lowrank-bench", "-t 08:00:00"} <= set(head)
    (command,) = [line for line in script.splitlines() if line and not line.startswith("#")]
    words = shlex.split(command)
    assert words[:3] == [sys.executable, "-m", "distributed.cli.dask_worker"]
    assert words[words.index("--nthreads") + 1] == "32" and "--nworkers" not in words
    assert words[words.index("--resources") + 1] == "lowrank-host=100"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hosts = 4", "hosts = 0"),
        ('"cpu"', '"cpu; rm -rf ~"'),
        ('"cpu"', '"cpu\\nrm -rf ~"'),
        ('"vision"', '"$(id)"'),
        ('"vision"', '"-vision"'),
        ('"64GB"', '"64GB `id`"'),
        ('"08:00:00"', '"soon"'),
        ('"--constraint=zen4"', '"--wrap=id > x"'),
        ('"--constraint=zen4"', '"--comment=a\\nid"'),
        ("hosts = 4", "host = 4"),
        ("[slurm]", "[slurm"),
    ],
)
def test_what_a_shell_would_understand_is_refused_with_its_place(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(lrb.InvalidInput, match=r"slurm\.toml"):
        slurm.load_slurm(written(tmp_path, GOOD.replace(old, new)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(lrb.InvalidInput, match="cannot be read"):
        slurm.load_slurm(tmp_path / "none.toml")


def test_the_file_that_the_readme_shows_is_good(tmp_path: Path) -> None:
    readme = (Path(slurm.__file__).parent / "README.md").read_text()
    shown = readme.split("```toml\n[slurm]")[1].split("```")[0]
    assert slurm.load_slurm(written(tmp_path, "[slurm]" + shown)).hosts == 4
