"""The command line: bad input is a few clear lines and exit status 2, and nothing recorded is touched."""

from __future__ import annotations

import errno
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from lowrank_bench import cli, cli_list
from lowrank_bench.running.engine import Engine, Summary
from lowrank_bench.running.sweep import plan
from lowrank_bench.training.baselines import Trained
from lowrank_bench.training.loop import Progress

SWEEP = """
[sweep]
task = "chars36"
models = ["charnet"]
methods = ["tucker"]
budgets = [{{macs = 4}}]
recipe = "none"
[measure]
runtimes = ["{runtime}"]
threads = [{threads}]
"""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of ``lowrank-bench ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["lowrank-bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("summary", "status", "words"),
    [
        (Summary(ran=1, failed=["x: crashed (why)"]), 1, "crashed (why)"),
        (Summary(kept=1, failed_before=["x: timeout (why)"]), 1, "timeout (why)"),
        (Summary(ran=1, skipped=["x: skipped (why)"]), 0, "skipped (why)"),
    ],
)
def test_a_run_names_what_failed_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    summary: Summary,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(Engine, "run", lambda *_: summary)
    assert call(monkeypatch, "run", "--out", str(tmp_path)) == status
    assert words in capsys.readouterr().err


def test_a_run_that_times_nothing_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Engine, "run", lambda *_: Summary(ran=1))
    assert call(monkeypatch, "run", "--out", str(tmp_path)) == 0
    assert "[measure]" not in capsys.readouterr().err
    (tmp_path / "untimed.toml").write_text(SWEEP.partition("[measure]")[0].format())
    assert call(monkeypatch, "run", str(tmp_path / "untimed.toml"), "--out", str(tmp_path)) == 0
    assert "nothing is timed here: in which settings to time, a sweep says in [measure]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quik"], "did you mean 'quick'"),
        (["run", "nowhere.toml"], "no such file"),
        (["run", "--only", "*resnet*"], "matches no trial"),
        (["run", "--timeout", "-1"], "--timeout -1"),
        (["run", "--timeout", "nan"], "--timeout nan"),
        (["run", "--retry", "all"], "only 'failed'"),
        (["run", "-j", "0"], "-j 0"),
        (["reproduce", "lebedev2015", "-j", "0"], "-j 0"),
        (["run", "--memory", "-1"], "--memory -1"),
        (["run", "--cluster", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["run", "strange.toml", "--cluster", "nowhere.toml"], "did you mean 'onnxruntime'"),
        (["run", "--only", "*resnet*", "--cluster", "nowhere.toml"], "matches no trial"),
        (["run", "--methods-dir", "nowhere"], "is not a folder"),
        (["run", "--out", "file"], "cannot be written"),
        (["report", "--out", "nowhere"], "does not exist"),
        (["report", "--out", "empty"], "no readable record"),
        (["compare", "nowhere", "empty"], "does not exist"),
        (["compare", "empty", "empty"], "neither"),
        (["merge", "empty"], "--out"),
        (["merge", "empty", "--out", "new"], "no readable record"),
        (["train", "charnett"], "list models"),
        (["train", "charnet", "--seed", "-1"], "--seed -1"),
        (["run", "strange.toml"], "did you mean 'onnxruntime'"),
        (["run", "wide.toml"], "this machine has"),
        (["doctor", "--seconds", "0"], "--seconds 0"),
        (["profile", "tucker", "--out", "nowhere"], "does not exist"),
        (["list", "colours"], "methods"),
        (["run", "--colour"], "--colour"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "strange.toml").write_text(SWEEP.format(runtime="onnx-runtime", threads=1))
    (tmp_path / "wide.toml").write_text(SWEEP.format(runtime="eager", threads=4096))
    assert call(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err and "Traceback" not in shown.err
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "file", "strange.toml", "wide.toml"}


def test_a_folder_that_may_not_be_looked_into_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/locked/results")

    monkeypatch.setattr("lowrank_bench.reporting.report.write_report", refused)
    assert call(monkeypatch, "report", "--out", "/locked/results") == 2
    assert "/locked/results cannot be reached (Permission denied)" in capsys.readouterr().err


def test_every_list_shows_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_list, "out_console", Console(width=250))
    for what, words in {
        "methods": ["tucker", "Tucker-2 (Kim et al. 2016)", "order = 'vh'"],
        "models": ["charnet"],
        "tasks": ["chars36", "1x24x24"],
        "runtimes": ["eager-nhwc"],
        "trials": ["charnet tucker macs/4 seed 0", "missing"],
    }.items():
        assert call(monkeypatch, "list", what, *(["--out", str(tmp_path / "none")] if what == "trials" else [])) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words), shown


def test_trials_are_listed_with_the_weights_that_they_are_run_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_list, "out_console", Console(width=250))
    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, "w.safetensors")
    Path("mine.toml").write_text(
        '[sweep]\ntask = "speed"\nmodels = ["timm:test_resnet"]\nmethods = ["tucker"]\nbudgets = [{macs = 2}]\n'
        'recipe = "none"\n'
    )
    assert (
        call(monkeypatch, "list", "trials", "--sweep", "mine.toml", "--weights", str(tmp_path / "w.safetensors")) == 0
    )
    shown = capsys.readouterr().out
    assert "timm:test_resnet@w.safetensors tucker macs/2 seed 0" in shown
    assert all(trial.key in shown for trial in plan("mine.toml", "m", weights=Path("w.safetensors"))[0])


def test_a_broken_plug_in_is_listed_with_its_reason_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lowrank_bench.compression.registry._folders", [])
    monkeypatch.setattr(cli_list, "out_console", Console(width=250))
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "taken.py").write_text(
        "from lowrank_bench.compression.method import Method\n"
        "class Tucker(Method):\n    name, version = 'tucker', 1\n    def compress(self, model, job): ...\n"
    )
    assert call(monkeypatch, "list", "methods", "--methods-dir", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "bad.py" in shown and "nothing_of_that_name" in shown
    assert "taken.py" in shown and "already taken" in shown
    assert "jaderberg" in shown


def test_the_version_is_told_with_torchs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    told = capsys.readouterr().out
    assert told.split() == ["lowrank-bench", f"{version('lowrank-bench')},", "torch", version("torch")]


def test_train_keeps_its_memory_and_does_not_overwrite_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "charnet.safetensors"
    path.write_text("precious")
    kept: list[bool] = []
    monkeypatch.setattr("lowrank_bench.allocator.keep_freed_memory", lambda: kept.append(True))
    assert call(monkeypatch, "train", "charnet", "--out", str(path)) == 2
    assert kept
    assert path.read_text() == "precious" and "exists" in capsys.readouterr().err


def test_train_tells_of_its_steps_in_a_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(task: str, model: str, out: Path | None, *, seed: int, progress: Progress) -> Trained:
        for step in range(1, 101):
            progress(step, 100, 2 / step)
        return Trained(tmp_path / model, {"validation": 91.0, "test": 90.5}, 90.0, 12.0)

    monkeypatch.setattr("lowrank_bench.training.baselines.train_model", trained)
    cli.app(["train", "charnet"], standalone_mode=False)
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if "steps" in line]
    assert len(lines) == 20
    assert lines[0] == "training charnet: 5/100 steps, loss 0.400" and lines[-1].startswith("training charnet: 100/100")
    assert "trained in 12 s: top-1 on validation 91.00 %, test 90.50 %" in told.out


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["report", "--help"], ["reproduce", "--help"]])
def test_help_is_there_at_once_as_it_imports_neither_torch_nor_pandas(arguments: list[str]) -> None:
    code = (
        "import sys; from lowrank_bench.cli import app\n"
        "try: app()\n"
        "except SystemExit: print(sorted({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "Usage:" in told.stdout and told.stdout.splitlines()[-1] == "[]"
