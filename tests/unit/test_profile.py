"""Where the time goes: the work of each layer in closed form, its bounds, and its time beside them."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import stand_ins
import torch
from synthetic_records import failed_trial, sweep, trial, write
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.errors import InvalidInput, MeasurementFailed, RuntimeMissing, UnknownName
from lowrank_bench.measurement import profile as profile_module
from lowrank_bench.measurement.limits import Work, work_of
from lowrank_bench.measurement.peak import Peak
from lowrank_bench.measurement.profile import Profile, profile
from lowrank_bench.record import Status
from lowrank_bench.reporting.figures.profile_figures import FIGURES
from lowrank_bench.reporting.profile_report import (
    SavedProfile,
    profile_facts,
    profile_markdown,
    profile_table,
    write_profile,
)
from lowrank_bench.reporting.report import write_report
from lowrank_bench.running import inspect
from lowrank_bench.running.child import Ended
from lowrank_bench.running.inspect import find_trial, inspect_machine, inspect_trial
from lowrank_bench.running.worker import Outcome

_DRAWN_ROOFLINE = [("roofline", ".png"), ("roofline", ".svg")]
PEAK = Peak(gflops=100.0, gbytes=10.0)


def network(first: int = 16, second: int = 24) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(second * 4 * 4, 10),
    ).eval()


@pytest.fixture(scope="module")
def found() -> Profile:
    """Of a network whose second convolution was factored."""
    dense = network()
    compressed = copy.deepcopy(dense)
    compressed[2] = lrb.factorize(dense[2], "tucker", (4, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_module, "peak", lambda threads: PEAK)
        return profile(dense, compressed, (3, 8, 8), batch=2, seconds=0.1)


def test_models_in_training_mode_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(profile_module, "peak", lambda threads: PEAK)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(model.state_dict())
    profile(model, model, (3, 8, 8), batch=2, seconds=0.05)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_narrower_network_is_timed_layer_by_layer_too_each_side_on_inputs_of_its_own_width(monkeypatch):
    monkeypatch.setattr(profile_module, "peak", lambda threads: PEAK)
    found = profile(network(), network(8, 12), (3, 8, 8), batch=2, seconds=0.05)
    assert [layer.macs_ratio for layer in found.layers] == [2.0, 4.0, 2.0]


def test_a_linear_layer_is_timed_on_rows_however_many_dimensions_its_input_has(monkeypatch):
    class Last(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.permute(0, 2, 3, 1)

    shapes = []
    real = profile_module.prepare
    monkeypatch.setattr(profile_module, "peak", lambda threads: PEAK)
    monkeypatch.setattr(
        profile_module, "prepare", lambda *given: (shapes.append(tuple(given[2].shape)), real(*given))[1]
    )
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Last(), nn.Linear(16, 10)).eval()
    found = profile(model, copy.deepcopy(model), (3, 8, 8), batch=2, seconds=0.05)
    assert shapes[2:4] == [(2 * 8 * 8, 16)] * 2
    assert found.layers[1].dense.macs == 2 * 8 * 8 * 16 * 10


def test_work_of_a_convolution_and_of_a_linear_layer_is_their_closed_form():
    conv, x = nn.Conv2d(16, 24, (3, 1), padding=(1, 0), groups=2), torch.randn(5, 16, 8, 6)
    numbers = x.numel() + 5 * 24 * 8 * 6 + 24 * 8 * 3 + 24
    assert work_of(conv, x) == [Work(5 * 24 * 8 * 3 * 8 * 6, 4 * numbers)]
    linear, rows = nn.Linear(30, 7), torch.randn(5, 30)
    assert work_of(linear, rows) == [Work(5 * 30 * 7, 4 * (5 * 30 + 5 * 7 + 30 * 7 + 7))]


def test_work_of_a_factored_layer_is_that_of_its_stages_each_at_its_own_resolution():
    conv, x = nn.Conv2d(16, 24, 3, stride=2, padding=1), torch.randn(1, 16, 8, 8)
    works = work_of(lrb.factorize(conv, "tucker", (4, 6)), x)  # (R_out, R_in)
    assert len(works) == 3
    assert sorted(work.macs for work in works) == sorted([16 * 6 * 64, 6 * 4 * 9 * 16, 4 * 24 * 16])


@pytest.mark.parametrize("runtime", ["openvino-bf16", "onnxruntime-int8"])
def test_a_runtime_of_fewer_bits_is_not_held_against_limits_in_float32(runtime: str):
    with pytest.raises(InvalidInput, match=f"{runtime}.*float32: profile eager, eager-nhwc"):
        profile(network(), network(), (3, 8, 8), runtime=runtime)


def test_the_limit_is_the_larger_of_arithmetic_and_traffic_at_the_measured_peak():
    arithmetic, traffic = Work(macs=10**9, bytes=10**6), Work(macs=10**6, bytes=10**9)
    assert (arithmetic.mac_ms(PEAK), arithmetic.traffic_ms(PEAK)) == pytest.approx((20.0, 0.1))
    assert arithmetic.limit_ms(PEAK) == pytest.approx(20.0)
    assert (traffic.limit_ms(PEAK), traffic.traffic_ms(PEAK)) == pytest.approx((100.0, 100.0))


def test_every_layer_is_timed_in_both_models_and_only_the_factored_one_has_more_stages(found):
    assert [layer.name for layer in found.layers] == ["0", "2", "4"]
    assert [layer.compressed.stages for layer in found.layers] == [1, 3, 1]
    assert [layer.macs_ratio == 1 for layer in found.layers] == [True, False, True]
    assert found.network.dense.macs == sum(layer.dense.macs for layer in found.layers)
    assert found.network.dense.macs == 2 * lrb.count(network(), (3, 8, 8)).macs
    assert all(layer.low <= layer.ratio <= layer.high for layer in [*found.layers, found.network])
    for layer in found.layers:
        for side in (layer.dense, layer.compressed):
            assert max(side.mac_ms, side.traffic_ms) <= side.limit_ms <= side.mac_ms + side.traffic_ms
            assert side.gflops == pytest.approx(2 * side.macs / (side.ms * 1e6))
    assert Profile.model_validate_json(found.model_dump_json()) == found


def test_the_table_has_every_layer_their_sum_and_the_network(found):
    table = profile_table(found)
    assert [str(cell) for cell in table.columns[0].cells] == ["0", "2", "4", "sum of layers", "network"]
    assert "100 GFLOP/s, 10.0 GB/s" in profile_facts(found)


def test_no_time_in_the_table_is_in_powers_of_ten(found):
    slow = found.network.dense.model_copy(update={"ms": 1234.4, "mac_ms": 280.3})
    slower = found.model_copy(update={"network": found.network.model_copy(update={"dense": slow})})
    written = profile_markdown(SavedProfile(key="0" * 16, trial=trial("tucker", 4), profile=slower))
    assert "| 1234 → " in written and "| 280 → " in written


def test_bars_roofline_table_and_numbers_are_written_twice_with_the_same_bytes(found, tmp_path):
    paths = write_profile(found, trial("tucker", 4), tmp_path)
    kinds = sorted((path.name.split("-")[0], path.suffix) for path in paths)
    assert kinds == [*(("profile", form) for form in (".json", ".md", ".png", ".svg")), *_DRAWN_ROOFLINE]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_profile(found, trial("tucker", 4), tmp_path)] == first
    assert all(path.parent.name == "figures" for path in paths)


def test_the_saved_numbers_name_trial_machine_and_date_and_are_those_of_the_table(found, tmp_path):
    of = trial("tucker", 4)
    numbers, table, *_ = write_profile(found, of, tmp_path)
    saved = SavedProfile.model_validate_json(numbers.read_bytes())
    assert (saved.key, saved.trial, saved.profile) == (of.key, of, found)
    assert saved.profile.environment.machine and saved.profile.environment.packages["torch"]
    written = table.read_text(encoding="utf-8")
    for told in (of.key, found.environment.machine, found.finished, "| sum of layers |", "| network |"):
        assert told in written
    for layer in found.layers:
        assert f"{layer.dense.p90_ms:.3g} → {layer.compressed.p90_ms:.3g}" in written
        assert f"{layer.ratio:.2f} [{layer.low:.2f}, {layer.high:.2f}]" in written


def test_every_layer_has_its_p50_below_its_p90_and_tells_how_many_pairs_it_rests_on(found):
    for layer in [*found.layers, found.network]:
        assert all(side.ms <= side.p90_ms for side in (layer.dense, layer.compressed))
        assert layer.pairs > 0 and layer.stop_reason in ("precision", "max_seconds", "max_pairs")


@pytest.mark.parametrize("draw", FIGURES.values())
def test_the_title_names_machine_and_date_and_is_never_cut_off(found, draw):
    options = {"align": 16, "allocation": "uniform", "spatial": "joint", "init": "a" * 60}
    figure = draw(found, trial("cp_nls", 4, options=options))
    figure.draw_without_rendering()
    title = figure.get_suptitle()
    assert found.environment.machine in title and found.finished[:10] in title
    box, canvas = figure._suptitle.get_window_extent(), figure.bbox
    assert canvas.x0 <= box.x0 < box.x1 <= canvas.x1 and box.y1 <= canvas.y1
    assert "reference" in figure.axes[0].get_xlabel() and "may beat it" in figure.axes[0].get_xlabel()


def test_a_part_of_a_network_has_a_file_name_too(found, tmp_path):
    part = trial("tucker", 4).model_copy(update={"model": "torchvision:vgg16/features"})
    (path, *_) = write_profile(found, part, tmp_path)
    assert path.parent == tmp_path / "figures"
    assert "-torchvision_vgg16_features-tucker-" in path.name


def test_a_trial_is_found_by_the_first_digits_of_its_key_or_by_a_pattern(tmp_path: Path):
    write(tmp_path, sweep())
    wanted = trial("tucker", 8)
    assert find_trial(tmp_path, wanted.key) == find_trial(tmp_path, wanted.key[:8]) == wanted
    assert find_trial(tmp_path, "*tucker macs/8*") == wanted
    with pytest.raises(InvalidInput, match=r"matches 2 trials(.|\n)*macs/4(.|\n)*macs/8"):
        find_trial(tmp_path, "*tucker*")
    with pytest.raises(InvalidInput, match="matches no trials"):
        find_trial(tmp_path, "resnet")


def test_a_trial_without_a_model_is_named_with_its_reason(tmp_path: Path):
    refused, made = trial("cp_nls", 4), trial("tucker", 4)
    write(tmp_path, [*sweep(), failed_trial(refused, Status.SKIPPED, "largest reachable ratio is 3.1")])
    with pytest.raises(InvalidInput, match="left no model: skipped, largest reachable ratio"):
        find_trial(tmp_path, refused.key)
    with pytest.raises(InvalidInput, match="holds no model"):
        inspect_trial(tmp_path, made, "eager", 1, 1, 1.0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"runtime": "egaer"}, UnknownName, "did you mean 'eager'"),
        ({"threads": 4096}, InvalidInput, "threads"),
        ({"threads": 0}, InvalidInput, "threads"),
        ({"batch": 0}, InvalidInput, "batch"),
        ({"seconds": -1.0}, InvalidInput, "--seconds -1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, change, error, words):
    setting = {"runtime": "eager", "threads": 1, "batch": 1, "seconds": 1.0} | change
    with pytest.raises(error, match=words):
        inspect_trial(tmp_path, trial("tucker", 4), **setting)


def test_code_that_a_record_names_is_not_run_unless_its_name_is_repeated(tmp_path: Path, monkeypatch):
    (tmp_path / "evil_nets.py").write_text("import pathlib; pathlib.Path('ran').touch()\ndef net(): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for task in ("speed", f"image_folder:{stand_ins.image_folder(tmp_path / 'images')}"):
        for name in ("evil_nets:net", "evil_nets:net@w.safetensors"):
            chosen = trial("tucker", 4, task=task, model=name)
            for repeated in (None, "evil_nets:other", ""):
                with pytest.raises(InvalidInput, match=r"'evil_nets:net', is code .*--model evil_nets:net"):
                    inspect_trial(tmp_path, chosen, "eager", 1, 1, 1.0, repeated)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InvalidInput, match="holds no model"):
        inspect_trial(
            tmp_path, trial("tucker", 4, task="speed", model="evil_nets:net"), "eager", 1, 1, 1.0, "evil_nets:net"
        )


def test_a_runtime_that_is_not_installed_is_named_with_the_hint(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(inspect, "available_runtimes", lambda: {"openvino": "pip install 'lowrank-bench[runtimes]'"})
    with pytest.raises(RuntimeMissing, match="pip install"):
        inspect_trial(tmp_path, trial("tucker", 4), "openvino", 1, 1, 1.0)


def test_a_child_that_ends_badly_is_a_failure_with_its_reason(monkeypatch):
    crashed = Ended(Outcome(status=Status.CRASHED, reason="the child ended with status 7"), "")
    monkeypatch.setattr(inspect, "run_child", lambda *_: crashed)
    monkeypatch.setattr(inspect, "timing_lock", lambda **_: nullcontext())
    with pytest.raises(MeasurementFailed, match="crashed: the child ended with status 7"):
        inspect_machine(1.0)


def test_a_report_links_every_profile_of_its_records_and_none_of_others(found, tmp_path):
    write(tmp_path, sweep())
    mine = write_profile(found, trial("tucker", 4), tmp_path)
    others = write_profile(found, trial("tucker", 4, seed=77), tmp_path)
    write_report(tmp_path)
    for page, link in (("leaderboard.md", "]({})"), ("index.html", 'href="{}"')):
        text = (tmp_path / page).read_text(encoding="utf-8")
        linked = [path for path in mine if link.format(f"figures/{path.name}") in text]
        assert linked == [path for path in mine if path.suffix != ".png"]
        assert not any(path.name in text for path in others)
    assert all(path.exists() for path in [*mine, *others])
    assert all(f"-{trial('tucker', 4).key}-" in path.name for path in mine)
