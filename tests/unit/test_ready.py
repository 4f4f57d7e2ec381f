"""Data that are not on this machine stop only what needs them, and nothing that was done while they were there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stand_ins
from noop import NoopCrew, NoopHost
from safetensors.torch import save_file

import lowrank_bench as lrb
from lowrank_bench import cli
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.record import Status, TrialRecord
from lowrank_bench.running.engine import Engine, Summary
from lowrank_bench.running.ready import lacking
from lowrank_bench.running.sweep import plan
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Trial

OWN, WEIGHTED, BASELINE = "ready_nets:net", "ready_nets:net@w.safetensors", "allconv"
NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a network of one's own and its weights, and Fashion-MNIST in ``data``; nothing is trained."""
    (tmp_path / "ready_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(stand_ins.fashion_mnist(tmp_path / "data")))
    save_file(get_task("fashion_mnist").load(OWN).state_dict(), "w.safetensors")
    yield tmp_path
    sys.modules.pop("ready_nets", None)


def run(*models: str, timed: bool = True) -> Summary:
    """Two trials of each model and a timing of both, by hosts that do nothing."""
    measure = '[measure]\nruntimes = ["eager"]\n' if timed else ""
    Path("sweep.toml").write_text(
        f'[sweep]\ntask = "fashion_mnist"\nmodels = {list(models)}\nmethods = ["channel_svd"]\n'
        'budgets = [{macs = 2}]\nrecipe = "none"\n' + measure
    )
    planned = plan("sweep.toml", fingerprint().machine)
    return Engine(Path("out"), fingerprint(), crew=NoopCrew(), lacking=lacking).run(*planned)


def recorded() -> list[tuple[str, Status]]:
    """Model and status of each trial's record, in order."""
    records = Engine(Path("out"), fingerprint()).store.records()
    return [(r.trial.model, r.status) for r in records if isinstance(r, TrialRecord)]


def test_what_lacks_its_data_is_a_row_with_the_remedy_and_the_rest_is_done(here: Path) -> None:
    summary = run(OWN, BASELINE)
    assert (summary.ran, summary.well) == (6, True)
    assert sorted(recorded()) == [(BASELINE, Status.SKIPPED)] * 2 + [(OWN, Status.OK)] * 2
    told = [line for line in summary.skipped if BASELINE in line]
    assert len(told) == 2 and all("DataMissing: " in line and "lowrank-bench train allconv" in line for line in told)
    again = run(OWN, BASELINE)
    assert (again.ran, again.kept, again.skipped) == (0, 6, told)


def test_once_the_data_are_there_the_same_sweep_does_the_rest_and_the_row_is_gone(here: Path) -> None:
    run(OWN, BASELINE)
    task = get_task("fashion_mnist")
    path = task.baselines[BASELINE].path(task.name, task.version, BASELINE)
    path.parent.mkdir(parents=True)
    save_file(task.build(BASELINE).state_dict(), path)
    assert run(OWN, BASELINE).ran == 4
    frame = lrb.load_records("out")
    assert set(frame[frame.model == BASELINE].reason) == {""} and len(frame) == 4


@pytest.mark.parametrize("model", [OWN, WEIGHTED])
def test_a_finished_sweep_runs_again_once_its_data_are_gone(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(model, BASELINE).ran == 6
    (here / "w.safetensors").unlink()
    monkeypatch.setattr("lowrank_bench.tasks.fashion_mnist.find_folder", _nowhere)
    again = run(model)
    assert (again.ran, again.kept, again.skipped) == (0, 4, [])
    with_others = run(model, BASELINE)
    assert (with_others.ran, with_others.kept, len(with_others.skipped)) == (2, 4, 2)  # for another reason than before


def test_what_a_method_refused_stands_too_once_the_data_are_gone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: NoopHost, trial: Trial, *_: object) -> TrialRecord:
        return TrialRecord(key=trial.key, trial=trial, status=Status.SKIPPED, reason="InvalidBudget: out of reach")

    monkeypatch.setattr(NoopHost, "prepare", refuse)
    assert run(WEIGHTED).ran == 2
    (here / "w.safetensors").unlink()
    again = run(WEIGHTED)
    assert (again.ran, again.kept, again.skipped) == (0, 2, [])


def test_a_model_that_is_gone_with_its_data_is_not_timed_until_they_are_back(here: Path) -> None:
    run(WEIGHTED, timed=False)
    shutil.rmtree("out/models")
    Path("w.safetensors").rename("elsewhere")
    first, again = run(OWN, WEIGHTED), run(OWN, WEIGHTED)
    assert (first.ran, again.ran, len(again.skipped)) == (6, 0, 2)
    assert (WEIGHTED, Status.SKIPPED) not in recorded()
    assert all("eager 1t b1: DataMissing: no checkpoint w.safetensors" in line for line in again.skipped)
    Path("elsewhere").rename("w.safetensors")
    assert run(OWN, WEIGHTED).ran == 4


def test_where_nothing_can_be_run_the_error_is_named_and_nothing_recorded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(lrb.DataMissing, match=r"train allconv(.|\n)*no checkpoint v.safetensors"):
        run(BASELINE, "ready_nets:net@v.safetensors")
    assert recorded() == []
    monkeypatch.setattr(sys, "argv", ["lowrank-bench", "run", "sweep.toml", "--out", "out"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "lowrank-bench train allconv" in capsys.readouterr().err


def _nowhere(*_: object) -> Path:
    raise lrb.DataMissing("no images here")
