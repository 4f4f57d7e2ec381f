"""A sweep file becomes trials and measurements; every mistake in it names file, field, value and remedy."""

from __future__ import annotations

from codecs import BOM_UTF8
from pathlib import Path

import pytest
from sweep_text import SWEEP

import lowrank_bench as lrb
from lowrank_bench.running.engine import select
from lowrank_bench.running.sweep import load_sweep, plan
from lowrank_bench.shipped import sweep_names


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return str(path)


def test_every_list_multiplies_and_each_seed_has_one_dense_control(tmp_path: Path) -> None:
    trials, measurements = plan(written(tmp_path, SWEEP), "this-machine")
    assert [t.method for t in trials].count("identity") == 2
    assert len(trials) == 2 * (1 + 2 * 4)
    assert len({t.key for t in trials}) == len(trials)
    threads = {m.threads for m in measurements}
    assert len(measurements) == len(trials) * 2 * 2 * len(threads) and 1 in threads
    assert {m.machine for m in measurements} == {"this-machine"}


def test_another_runtime_leaves_the_trials_as_they_are(tmp_path: Path) -> None:
    trials, _ = plan(written(tmp_path, SWEEP), "m")
    more, _ = plan(written(tmp_path, SWEEP.replace('"eager-nhwc"]', '"eager-nhwc", "onnxruntime"]')), "m")
    assert trials == more


def test_what_is_listed_twice_is_planned_once(tmp_path: Path) -> None:
    twice = SWEEP.replace('"eager-nhwc"]', '"eager-nhwc", "eager"]').replace("[1, 64]", "[1, 64, 1]")
    assert plan(written(tmp_path, twice), "m") == plan(written(tmp_path, SWEEP), "m")


def test_the_key_changes_with_the_declared_version_of_the_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {t.key for t in plan(written(tmp_path, SWEEP), "m")[0] if t.method == "tucker"}
    monkeypatch.setattr(lrb.methods()["tucker"], "version", 99)
    after = {t.key for t in plan(written(tmp_path, SWEEP), "m")[0] if t.method == "tucker"}
    assert not before & after


def test_only_a_budget_in_latency_belongs_to_a_machine(tmp_path: Path) -> None:
    timed = SWEEP.replace("macs = 4", 'latency = 2, runtime = "eager", threads = 1, batch = 1')
    one, other = (plan(written(tmp_path, timed), machine)[0] for machine in ("one", "other"))
    for mine, theirs in zip(one, other, strict=True):
        latency = mine.budget is not None and mine.budget.metric == "latency"
        assert (mine.key != theirs.key) is ("machine" in mine.versions) is latency
        assert mine.control == theirs.control


@pytest.mark.parametrize("name", sweep_names())
def test_shipped_sweeps_are_valid(name: str) -> None:
    trials, measurements = plan(name, "m")
    assert trials and measurements


def test_what_is_published_rests_on_five_fresh_processes(tmp_path: Path) -> None:
    assert {m.processes for name in ("standard", "runtimes", "speed") for m in plan(name, "m")[1]} == {5}
    plain = {t.key for t in plan("runtimes", "m")[0] if not t.options}
    assert plain <= {t.key for t in plan("standard", "m")[0]}  # made once, timed in both
    assert {m.processes for m in plan(written(tmp_path, SWEEP + "processes = 7\n"), "m")[1]} == {7}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"tucker"', '"tuckr"', "did you mean 'tucker'"),
        ('"chars36"', '"chars63"', "did you mean 'chars36'"),
        ('["charnet"]', '["charnett"]', "did you mean 'charnet'"),
        ('"none"', '"shrot"', "did you mean 'short'"),
        ('["eager", "eager-nhwc"]', '["eagr"]', "did you mean 'eager'"),
        ('order = "hv"', 'order = "up"', "order = 'up'"),
        ('order = "hv"', 'rank = "hv"', "rank = 'hv'"),
        ("macs = 4", "macs = -4", "macs = -4"),
        ("macs = 4", "macs = nan", "budget: macs = nan"),
        ("macs = 4", "macs = true", "macs = True: a number is wanted"),
        ("macs = 4", 'macs = "4"', "macs = '4': a number is wanted"),
        ("macs = 4", "flops = 4", "flops = 4"),
        ("macs = 4", 'latency = 2, runtime = "eagr", threads = 1, batch = 1', "did you mean 'eager'"),
        ("macs = 4", 'latency = 2, runtime = "eager", threads = 4096, batch = 1', r"sweep\.budgets.*machine has"),
        ("macs = 4", 'latency = 2, runtime = "eager", threads = 1, batch = 0', "batch = 0"),
        ('models = ["charnet"]', "models = []", r"sweep\.models = \[\]"),
        ('"evbmf"', "-5", r"sweep\.ranks = -5: ranks of at least 1"),
        ('"evbmf"', "[3, 0]", r"sweep\.ranks = \(3, 0\): ranks of at least 1"),
        ("conv2 = 8", "conv2 = 0", r"sweep\.ranks = .*conv2.*ranks of at least 1"),
        ('"evbmf"', '"evbfm"', r"sweep\.ranks: unknown rank rule 'evbfm'"),
        ('"evbmf"', '"energy:2"', r"sweep\.ranks: unknown rank rule 'energy:2'"),
        ("batches = [1, 64]", "batches = [1, 64]\nseeds = [1, 7]", r"measure\.seeds = \[1, 7\]: \[7\] are not among"),
        ("seeds = [0, 1]", 'seeds = ["x"]', r"sweep\.seeds\.0 = 'x'"),
        ("seeds = [0, 1]", "seeds = [true]", r"sweep\.seeds\.0 = True"),
        ("batches = [1, 64]", "batches = [1, 64]\nmax_seconds = true", r"measure\.max_seconds = True: a number is"),
        ("seeds = [0, 1]", "sedes = [0, 1]", r"sweep\.sedes = .*did you mean 'seeds'\? known are budgets, meth"),
        ("[measure]", "[mesure]", r"mesure = .*did you mean 'measure'\? known are measure, sweep$"),
        ("batches = [1, 64]", "batch = [1, 64]", r"measure\.batch = .*did you mean 'batches'"),
        ("batches = [1, 64]", "batches = [true]", r"measure\.batches\.0 = True"),
        (
            '"evbmf"',
            "true",
            r"sweep\.ranks\.0 = True: a rank, a list of ranks, .* is wanted$",
        ),
        ("conv2 = 8", "conv2 = 1.5", r"sweep\.ranks\.1 = {'conv2': 1\.5}: a rank, a list of ranks"),
        (
            'threads = [1, "all"]',
            "threads = [1.5]",
            r"measure\.threads\.0 = 1\.5: a number of at least 1, or 'all'",
        ),
        ("batches = [1, 64]", "batches = [0]", r"measure\.batches\.0 = 0"),
        ('threads = [1, "all"]', "threads = [4096]", r"measure\.threads = 4096.*this machine has"),
        ("[sweep]", "[sweep", "not valid TOML"),
        ('recipe = "none"', "", r"sweep\.recipe is missing$"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SWEEP
    source = written(tmp_path, SWEEP.replace(old, new, 1))
    with pytest.raises(lrb.InvalidSweep, match=words) as caught:
        plan(source, "m")
    assert "sweep.toml" in str(caught.value)


def test_the_mark_with_which_some_editors_begin_a_file_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_text(SWEEP, encoding="utf-8-sig")
    assert path.read_bytes().startswith(BOM_UTF8)
    assert plan(str(path), "m") == plan(written(tmp_path, SWEEP), "m")


def test_a_sweep_without_targets_or_that_is_not_there_is_named(tmp_path: Path) -> None:
    text = SWEEP.replace('ranks = ["evbmf", {conv2 = 8}]', "").replace(
        'budgets = [{macs = 4}, {params = 2, scope = "convs"}]', ""
    )
    with pytest.raises(lrb.InvalidSweep, match="budgets is empty"):
        plan(written(tmp_path, text), "m")
    with pytest.raises(lrb.UnknownName, match="did you mean 'quick'"):
        load_sweep("quik")


def test_only_selects_by_pattern_and_a_pattern_without_a_match_is_named(tmp_path: Path) -> None:
    trials, measurements = plan(written(tmp_path, SWEEP), "m")
    chosen, timed = select(trials, measurements, ["*evbmf*seed 1"])
    assert [t.method for t in chosen] == ["identity", "tucker", "jaderberg"]  # with the control that belongs to them
    assert {t.seed for t in chosen} == {1} and {t.ranks for t in chosen[1:]} == {"evbmf"}
    assert {m.trial for m in timed} == {t.key for t in chosen}
    with pytest.raises(lrb.InvalidInput, match="matches no trial"):
        select(trials, measurements, ["*evbmf*", "*resnet*"])
    both, _ = select(trials, measurements, ["tucker", "jaderberg"])
    alone = [{t.key for t in select(trials, measurements, [name])[0]} for name in ("tucker", "jaderberg")]
    assert {t.key for t in both} == alone[0] | alone[1] and alone[0] != alone[1]
