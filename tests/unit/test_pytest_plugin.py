"""A user's five lines become a benchmark; whoever does not use the plug-in does not notice it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from lowrank_bench.measurement.statistics import median_ratio_interval

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
QUIET = ("-p", "no:cacheprovider", "-p", "no:xdist")

TINY = """
import lowrank_bench as lrb
from torch import nn

def test_tiny(lowrank):
    model = nn.Sequential(nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    outcome = lowrank(model, "tucker", lrb.Budget(macs=3), input_size=(8, 16, 16), rounds=6)
    assert outcome.top1 is None
    assert (outcome.speedup is None) == (outcome.verdict is None)
"""


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker of xdist pytest-benchmark would switch itself off, in the inner run too."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)


def test_the_five_lines_of_the_readme_become_a_benchmark(pytester: pytest.Pytester) -> None:
    section = README.split("## In your own pytest suite")[1].split("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None and len([line for line in code[1].splitlines() if line.strip()]) == 5
    pytester.makepyfile(test_mine=code[1])
    done = pytester.runpytest_subprocess(*QUIET, "--benchmark-only", "--benchmark-json=out.json", timeout=110)
    done.assert_outcomes(passed=1)
    report = json.loads((pytester.path / "out.json").read_text())
    machine = report["machine_info"]["lowrank_bench"]
    assert machine["packages"]["torch"] and machine["torch_threads"] >= 1 and machine["cpu"]
    (row,) = report["benchmarks"]
    info, stats = row["extra_info"], row["stats"]
    assert row["group"] == info["model"] == "charnet"
    rounds = info["rounds_ms"]
    assert stats["rounds"] == len(rounds) == 30
    assert stats["median"] * 1e3 == pytest.approx(median(own for _, own, _ in rounds), rel=0.1), "both clocks, per call"
    dense_and_own = [(after if number % 2 else before, own) for number, (before, own, after) in enumerate(rounds)]
    interval = median_ratio_interval([dense / own for dense, own in dense_and_own])
    assert (info["speedup"], info["speedup_low"], info["speedup_high"]) == pytest.approx(interval)
    assert info["verdict"] in ("faster", "same", "slower") and info["noise_floor"] > 0
    assert info["macs_ratio"] == pytest.approx(info["macs_dense"] / info["macs"]) == pytest.approx(4, rel=0.05)
    assert info["realised"] == pytest.approx(info["speedup"] / info["macs_ratio"])
    assert (info["top1_split"], info["top1_images"]) == ("validation", 3562)
    assert info["top1_untuned_drop"] == pytest.approx(info["top1_dense"] - info["top1_untuned"])
    assert info["top1_untuned_drop_low"] <= info["top1_untuned_drop"] <= info["top1_untuned_drop_high"]


def test_runs_are_saved_and_compared_without_a_word_about_the_machine(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_tiny=TINY)
    save = (*QUIET, "--benchmark-only", "--benchmark-storage=runs", "--benchmark-autosave")
    pytester.runpytest_subprocess(*save).assert_outcomes(passed=1)
    again = pytester.runpytest_subprocess(*save, "--benchmark-compare")
    again.assert_outcomes(passed=1)
    again.stdout.fnmatch_lines_random(["*test_tiny (NOW)*", "*test_tiny (0001*"])
    assert "machine_info is different" not in again.stdout.str() + again.stderr.str()
    compared = pytester.run("pytest-benchmark", "--storage=runs", "compare")
    assert compared.ret == 0 and compared.stdout.str().count("test_tiny") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_what_is_timed_is_pinned_to_as_many_cores_as_threads(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import lowrank_bench as lrb
        from torch import nn

        def test_pinned(lowrank):
            seen, before = set(), os.sched_getaffinity(0)

            class Told(nn.Sequential):
                def forward(self, x):
                    seen.add(len(os.sched_getaffinity(0)))
                    return super().forward(x)

            model = Told(nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
            lowrank(model, "tucker", lrb.Budget(macs=3), input_size=(8, 16, 16), rounds=6, runtime="eager")
            assert 1 in seen and os.sched_getaffinity(0) == before
        """
    )
    pytester.runpytest_subprocess(*QUIET, "--benchmark-only").assert_outcomes(passed=1)


def test_the_benchmarks_are_the_methods_by_model_and_the_comparison_of_cp_is_run_where_it_is_named() -> None:
    def collected(*arguments: str) -> list[str]:
        command = [sys.executable, "-P", "-m", "pytest", "--collect-only", "-q", *QUIET, *arguments]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [line.partition("::")[2] for line in shown.splitlines() if "::" in line]

    methods = collected("tests/bench", "--models", "charnet,vgg11_narrow")
    assert {"test_method[charnet-tucker-macs4]", "test_method[vgg11_narrow-identity-dense]"} < {*methods}
    assert all(name.startswith("test_method[") for name in methods)
    assert len(methods) == 2 * len(collected("tests/bench/test_methods.py"))
    assert len(collected("tests/bench/test_cp_vs_tensorly.py")) == 7


def test_disabled_benchmarks_run_once_and_tell_no_speedup(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_tiny=TINY)
    pytester.runpytest_subprocess(*QUIET, "--benchmark-disable").assert_outcomes(passed=1)


def test_bad_input_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        import lowrank_bench as lrb
        from torch import nn

        @pytest.mark.parametrize(("arguments", "kind", "words"), [
            (("charnett", "tucker", lrb.Budget(macs=4)), lrb.UnknownName, "'charnet'. known are [a-z0-9_, ]*$"),
            (("timm:test_resnt", "tucker", lrb.Budget(macs=4)), lrb.UnknownName, "test_resnet"),
            (("charnet", "tukker", lrb.Budget(macs=4)), lrb.UnknownName, "tucker"),
            ((nn.Conv2d(1, 1, 1), "tucker", lrb.Budget(macs=4)), lrb.InvalidInput, "input_size"),
            (("charnet", "tucker"), lrb.InvalidInput, "exactly one"),
        ])
        def test_bad(lowrank, arguments, kind, words):
            with pytest.raises(kind, match=words):
                lowrank(*arguments)

        def test_a_tasks_network_has_its_size(lowrank):
            with pytest.raises(lrb.InvalidInput, match="are .1, 24, 24.; .* 'torchvision:charnet'"):
                lowrank("charnet", "tucker", lrb.Budget(macs=4), input_size=(3, 224, 224))

        def test_few_rounds(lowrank):
            with pytest.raises(lrb.InvalidInput, match="at least 6"):
                lowrank("charnet", "tucker", lrb.Budget(macs=4), rounds=5)
        """
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=7)


def test_networks_that_are_no_tasks_are_known_by_the_names_that_a_sweep_gives_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        own_net="""
        from torch import nn

        def net():
            return nn.Sequential(nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))

        net.input_size = (8, 16, 16)
        """,
        test_names="""
        import threading
        from contextlib import contextmanager
        from time import sleep

        import lowrank_bench as lrb
        from lowrank_bench import benchmarking
        from lowrank_bench.compression.method import Job
        from lowrank_bench.running.locks import timing_lock
        from lowrank_bench.tasks.catalog import get_task

        def test_library(lowrank, monkeypatch):
            held = []

            def holding(name):
                @contextmanager
                def lock(waiting):
                    held.append(name)
                    yield
                    held.append(f"no {name}")

                return lock

            monkeypatch.setattr(benchmarking, "timing_lock", holding("timing"))
            monkeypatch.setattr(benchmarking, "preparation_lock", holding("preparation"))
            outcome = lowrank("timm:test_resnet", "channel_svd", lrb.Budget(macs=2), input_size=[1, 32, 32], rounds=6)
            assert outcome.top1 is None and outcome.speedup.low > 0
            assert held == 2 * ["preparation", "no preparation"] + ["timing", "no timing"]
            assert lowrank.benchmark.extra_info["model"] == "timm:test_resnet"

            task = get_task("speed:1x32x32", "timm:test_resnet")
            job = Job(task.input_size, lrb.Budget(macs=2), speed_only=True)
            by_a_sweep = lrb.methods()["channel_svd"]().compress(task.load("timm:test_resnet"), job).plan
            assert outcome.compressed.plan == by_a_sweep

        def test_own(lowrank):
            outcome = lowrank("own_net:net", "tucker", lrb.Budget(macs=3), rounds=6)
            assert outcome.compressed.dense_cost == lrb.count(__import__("own_net").net(), (8, 16, 16))
            assert all(layer.error is not None for layer in outcome.compressed.plan.layers.values())

        def test_whoever_waits_says_so(lowrank, caplog):
            begun = threading.Event()

            def time():
                with timing_lock():
                    begun.set()
                    sleep(1)

            threading.Thread(target=time).start()
            begun.wait()
            lowrank("own_net:net", "tucker", lrb.Budget(macs=3), rounds=6)
            assert "waiting for the machine" in caplog.text
        """,
    )
    pytester.runpytest_subprocess(*QUIET, "--benchmark-only").assert_outcomes(passed=3)


@pytest.mark.parametrize("options", [(), ("-p", "no:benchmark"), ("-p", "no:lowrank_bench")])
def test_a_run_that_does_not_use_it_imports_nothing_heavy(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'scipy', 'pydantic'}"
    # hypothesis and others may have plug-ins of their own: only what this one brings is asked
    pytester.makepyfile(f"import sys\ndef test_light():\n    assert not {heavy} & set(sys.modules)\n")
    alone = ("-p", "lowrank_bench.pytest_plugin") if "no:lowrank_bench" not in options else ()
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.runpytest_subprocess(*QUIET, *alone, *options).assert_outcomes(passed=1)


def test_the_package_imports_names_when_asked_for() -> None:
    code = """
import sys, lowrank_bench as lrb
assert "torch" not in sys.modules and {"compress", "methods"} <= set(dir(lrb))
assert all(getattr(lrb, name) is not None for name in lrb.__all__)
assert callable(lrb.methods) and lrb.decomposition.__name__ == "lowrank_bench.decomposition"
assert not hasattr(lrb, "nothing_of_that_name")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
