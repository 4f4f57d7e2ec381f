"""Any network by name, with weights from a file: what does not fit is named before any work is done."""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import torch
from safetensors.torch import save_file
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.running import timing
from lowrank_bench.running.ready import check_ready
from lowrank_bench.running.stages import Stopwatch, run_trial
from lowrank_bench.running.sweep import plan
from lowrank_bench.tasks import layers
from lowrank_bench.tasks.catalog import TASKS, get_task
from lowrank_bench.tasks.own_imports import imported_files
from lowrank_bench.tasks.own_model import source_checksum
from lowrank_bench.tasks.zoo import Wanted, build_zoo_model
from lowrank_bench.trial import Measurement

SMALL = "timm:test_resnet"
OWN = """
import torch
from torch import nn

def net():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 48, 3), *head)

def seven():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 7))

def half():
    return net().bfloat16()

def wrong():
    return 3

def broken():
    raise OSError("no such disk")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with own_nets.py, and Fashion-MNIST beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(stand_ins.fashion_mnist(tmp_path / "data")))
    yield folder
    sys.modules.pop("own_nets", None)


def sweep(folder: Path, model: str, task: str = "fashion_mnist") -> str:
    path = folder / "sweep.toml"
    path.write_text(
        f'[sweep]\ntask = "{task}"\nmodels = ["{model}"]\nmethods = ["channel_svd"]\n'
        'budgets = [{macs = 2}]\nrecipe = "none"\n'
    )
    return str(path)


def test_a_network_of_ones_own_is_the_same_at_every_call(here: Path) -> None:
    task = get_task("fashion_mnist")
    first, second = (task.load("own_nets:net") for _ in range(2))
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    task.check_ready("own_nets:net")


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("own_nets:ne", lrb.UnknownName, "did you mean 'net'"),
        ("own_net:net", lrb.InvalidInput, "own_net cannot be imported"),
        ("own_nets:wrong", lrb.InvalidInput, "gives a int, a torch.nn.Module is wanted"),
        ("own_nets:broken", lrb.InvalidInput, "its factory failed, OSError: no such disk"),
        ("own_nets:seven", lrb.InvalidInput, r"outputs of shape \(1, 7\).*10 classes: let its factory give"),
        ("own_nets:half", lrb.InvalidInput, r"its 0\.weight is torch\.bfloat16, .* let its factory end in \.float"),
        ("timm:test_resnt", lrb.UnknownName, "did you mean 'test_resnet'"),
        ("timm:resnet_18", lrb.UnknownName, r"did you mean 'resnet18'\? known are .{100,600}, and \d{3,} more$"),
        ("resnet81", lrb.UnknownName, "did you mean 'resnet18'"),
        ("resnet18", lrb.DataMissing, "lowrank-bench train resnet18"),
        ("own_nets:net@nowhere.safetensors", lrb.DataMissing, "no file nowhere.safetensors"),
        ("@nowhere.safetensors", lrb.InvalidInput, "timm:NAME"),
    ],
)
def test_what_cannot_be_is_named(here: Path, model: str, error: type[Exception], words: str) -> None:
    task = get_task("fashion_mnist")
    with pytest.raises(error, match=words):
        task.check_model(model)
        task.check_ready(model)


def test_weights_come_from_a_file(here: Path) -> None:
    network = build_zoo_model(SMALL, Wanted(classes=10, channels=1))
    nn.init.constant_(next(network.parameters()), 0.5)
    save_file(network.state_dict(), "w.safetensors")
    loaded = get_task("fashion_mnist").load(f"{SMALL}@w.safetensors")
    states = (network.state_dict().values() for network in (loaded, network))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert not loaded.training


def test_weights_that_do_not_fit_are_named(here: Path) -> None:
    save_file(build_zoo_model(SMALL).state_dict(), "other.safetensors")  # 1000 classes, 3 channels
    with pytest.raises(lrb.InvalidWeights, match=r"another architecture than ResNet: .* has shape .* in the file"):
        get_task("fashion_mnist").load(f"{SMALL}@other.safetensors")
    Path("pickled.pth").write_bytes(b"\x80\x02not this")
    with pytest.raises(lrb.InvalidWeights, match=r"not a safetensors file.*pickled checkpoints are not read"):
        get_task("fashion_mnist").load(f"{SMALL}@pickled.pth")
    state = build_zoo_model(SMALL, Wanted(10, 1)).state_dict()
    state["fc.bias"] = state["fc.bias"] / 0
    save_file(state, "nan.safetensors")
    with pytest.raises(lrb.InvalidWeights, match=r"fc.bias holds values that are not finite"):
        get_task("fashion_mnist").load(f"{SMALL}@nan.safetensors")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_that_a_wrapper_named_or_that_count_no_batches_are_taken(here: Path, prefix: str) -> None:
    state = build_zoo_model(SMALL, Wanted(classes=10, channels=1)).state_dict()
    told = {prefix + name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    save_file(told, "wrapped.safetensors")
    found = get_task("fashion_mnist").load(f"{SMALL}@wrapped.safetensors").state_dict()
    assert len(told) < len(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_weights_of_other_classes_can_be_left_out_where_only_time_counts(here: Path) -> None:
    save_file(build_zoo_model(SMALL, Wanted(classes=10)).state_dict(), "ten.safetensors")
    with pytest.raises(lrb.InvalidWeights, match="time does not depend on the values of weights: leave @FILE out"):
        get_task("speed:3x32x32").load(f"{SMALL}@ten.safetensors")


def test_pretrained_weights_that_cannot_be_had_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(lrb.DataMissing, match=r"no network.*--weights FILE.*task 'speed', which needs none"):
        build_zoo_model(SMALL, Wanted(pretrained=True))


def test_weights_for_which_there_is_no_memory_are_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("timm.create_model", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        build_zoo_model(SMALL, Wanted(pretrained=True))


def test_pickled_code_in_pretrained_weights_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    monkeypatch.setattr("timm.create_model", lambda *_, **__: torch.load(tmp_path / "evil.pth", weights_only=False))
    with pytest.raises(lrb.DataMissing):
        build_zoo_model(SMALL, Wanted(pretrained=True))
    assert not (tmp_path / "ran").exists()


def test_other_weights_or_other_code_are_another_trial(here: Path) -> None:
    def keys(model: str) -> set[str]:
        return {trial.key for trial in plan(sweep(here, model), "m")[0]}

    before = keys("own_nets:net")
    assert before == keys("own_nets:net")
    (here / "own_nets.py").write_text(OWN + "# changed\n")
    assert not before & keys("own_nets:net")
    save_file({"a": torch.zeros(1)}, "w.safetensors")
    before = keys(f"{SMALL}@w.safetensors")
    save_file({"a": torch.ones(1)}, "w.safetensors")
    assert not before & keys(f"{SMALL}@w.safetensors")


@pytest.mark.parametrize(
    "draw", ["torch.rand(1)", "torch.tensor([random.random()])", "torch.rand(1) * numpy.random.rand()"]
)
def test_other_weights_from_the_factory_are_another_trial_where_images_are_judged(here: Path, draw: str) -> None:
    (here / "own_nets.py").write_text(
        f"import random\nimport numpy\n{OWN}\n"
        "def filled():\n"
        "    model = net()\n"
        f"    nn.init.constant_(model[0].bias, float(open('w.txt').read()) + float({draw}))\n"
        "    return model\n"
    )
    Path("w.txt").write_text("1")
    tasks = get_task("fashion_mnist"), get_task("speed:1x32x32")
    state = random.getstate(), np.random.get_state()[1].tolist()
    before = [task.brought("own_nets:filled") for task in tasks]
    assert before == [task.brought("own_nets:filled") for task in tasks]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state
    Path("w.txt").write_text("2")
    scored, timed = (task.brought("own_nets:filled") for task in tasks)
    assert scored != before[0]
    assert timed == before[1]


def test_the_code_of_a_network_is_its_file_and_what_of_its_folder_it_imports(here: Path) -> None:
    helper, deep, unrelated = here / "helpers.py", here / "blocks" / "deep.py", here / "plot.py"
    deep.parent.mkdir()
    for file, text in {
        here / "own_nets.py": f"def late():\n    from helpers import WIDTH\n{OWN}",
        helper: "from blocks import deep\nimport torch, json\n",
        deep.parent / "__init__.py": "",
        deep: "from . import deeper\n",
        deep.parent / "deeper.py": "from ..nowhere import x\n",
        deep.parent / "apart.py": "",
        unrelated: "import own_nets\n",
    }.items():
        file.write_text(text)
    made_of = [path.relative_to(here).as_posix() for path in imported_files([here / "own_nets.py"], here)]
    assert made_of == ["blocks/__init__.py", "blocks/deep.py", "blocks/deeper.py", "helpers.py", "own_nets.py"]
    before = source_checksum("own_nets:net")
    unrelated.write_text("# edited\n")
    (deep.parent / "apart.py").write_text("# edited\n")
    assert source_checksum("own_nets:net") == before
    deep.write_text("from . import deeper\nWIDTH = 9\n")
    assert source_checksum("own_nets:net") != before
    (here / "own_nets.py").write_text("def\n")
    assert imported_files([here / "own_nets.py"], here) == [here / "own_nets.py"]


def test_a_file_of_weights_is_one_however_it_is_spelt(here: Path) -> None:
    save_file({"a": torch.zeros(1)}, "w.safetensors")
    save_file({"a": torch.zeros(1)}, here.parent / "v.safetensors")
    for spellings, said in (
        (("w.safetensors", "./w.safetensors", "../here/w.safetensors", str(here / "w.safetensors")), "w.safetensors"),
        (("../v.safetensors", str(here.parent / "v.safetensors")), str(here.parent / "v.safetensors")),
    ):
        found = [plan(sweep(here, f"{SMALL}@{spelling}"), "m")[0] for spelling in spellings]
        found += [plan(sweep(here, SMALL), "m", weights=Path(spelling))[0] for spelling in spellings]
        assert {trial.model for trials in found for trial in trials} == {f"{SMALL}@{said}"}
        assert len({trial.key for trials in found for trial in trials}) == len(found[0])


def test_what_changed_since_a_run_was_planned_is_refused_where_it_is_loaded(here: Path) -> None:
    _, trial = plan(sweep(here, "own_nets:net", "speed:1x32x32"), "m")[0]
    watch = Stopwatch(lambda *_: None)
    run_trial(trial, here / "models", watch)
    measurement = Measurement(
        trial=trial.key, machine="m", runtime="eager", threads=1, batch=1, precision=0.5, max_seconds=1
    )
    (here / "own_nets.py").write_text(OWN + "# changed\n")
    changed = r"'own_nets:net' .* changed since this run was planned: run the command again"
    with pytest.raises(lrb.InvalidInput, match=changed):
        run_trial(trial, here / "models", watch)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(lrb.InvalidInput, match=changed):
        patch.setattr(timing, "pin_cores", lambda _threads: None)
        timing.TimingProcess(trial, measurement, here / "models", here).time(trial, watch)


def test_the_code_of_a_network_is_that_of_its_whole_package(here: Path) -> None:
    inner = here / "own_nets_package" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("")
    (inner / "nets.py").write_text(OWN)
    before = source_checksum("own_nets_package.inner.nets:net")
    (inner.parent / "layers.py").write_text("WIDTH = 8\n")
    (inner / ".#nets.py").symlink_to("editor@host")  # an editor's lock, which leads nowhere
    whole = source_checksum("own_nets_package.inner.nets:net")
    assert before != whole != 0
    (inner / "nets.py").write_text(f"from beside_the_package import WIDTH\n{OWN}")
    (here / "beside_the_package.py").write_text("WIDTH = 8\n")
    before = source_checksum("own_nets_package.inner.nets:net")
    (here / "beside_the_package.py").write_text("WIDTH = 9\n")
    assert before != source_checksum("own_nets_package.inner.nets:net")
    (inner / "nowhere.py").symlink_to("gone.py")
    with pytest.raises(lrb.InvalidInput, match=r"nowhere.py cannot be read"):
        source_checksum("own_nets_package.inner.nets:net")


def test_the_code_of_a_network_that_comes_with_the_suite_is_its_own_file() -> None:
    assert source_checksum("lowrank_bench.tasks.layers:alexnet_conv2") == zlib.crc32(Path(layers.__file__).read_bytes())


def test_a_sweep_that_cannot_start_says_so_at_once(here: Path) -> None:
    trials, _ = plan(sweep(here, "own_nets:seven"), "m")
    with pytest.raises(lrb.InvalidInput, match="10 classes"):
        check_ready(trials)
    with pytest.raises(lrb.InvalidSweep, match="a sweep of one model that names no file"):
        plan(sweep(here, "own_nets:net@w.safetensors"), "m", weights=Path("v.safetensors"))


@pytest.mark.parametrize("error", ["TypeError", "KeyError", "AttributeError", "ZeroDivisionError"])
def test_whatever_the_forward_pass_of_ones_own_network_raises_is_named(here: Path, error: str) -> None:
    lines = ("class Net(nn.Sequential):", "    def forward(self, x):", f"        raise {error}('why')")
    (here / "own_nets.py").write_text("\n".join((OWN, *lines)))
    for task in ("fashion_mnist", "speed:1x32x32"):
        with pytest.raises(lrb.InvalidInput, match=rf"own_nets:Net.*\(1, 32, 32\).*{error}: '?why"):
            get_task(task).check_ready("own_nets:Net")


def test_speed_names_a_wrong_part_and_a_network_of_one_size_before_any_work(here: Path) -> None:
    with pytest.raises(lrb.InvalidInput, match="has no part 'feature'; its parts are features"):
        get_task("speed").check_ready("torchvision:squeezenet1_1/feature")
    with pytest.raises(lrb.InvalidInput, match=r"_384.*of size \(3, 224, 224\).*as speed:3x384x384"):
        get_task("speed").check_ready("timm:vit_tiny_patch16_384")
    get_task("speed").check_ready("torchvision:squeezenet1_1/features")


def test_speed_takes_any_size(here: Path) -> None:
    task = get_task("speed:1x32x32")
    assert task.input_size == (1, 32, 32) and get_task("speed").input_size == (3, 224, 224)
    task.check_ready("own_nets:net")
    with pytest.raises(lrb.InvalidInput, match=r"does not take images of size \(3, 224, 224\)"):
        get_task("speed").check_ready("own_nets:net")
    for wrong in ("speed:32", "speed:3x0x3", "speed:3x32xx"):
        with pytest.raises(lrb.InvalidInput, match="speed:3x224x224"):
            get_task(wrong)
    with pytest.raises(lrb.InvalidInput, match="chars36 takes nothing"):
        get_task("chars36:x")


def test_a_network_of_ones_own_with_weights_from_a_file_becomes_a_record(here: Path) -> None:
    network = get_task("fashion_mnist").load("own_nets:net")
    nn.init.zeros_(network[5].weight)
    network[5].bias.data.copy_(torch.eye(10)[3])  # the fourth class, whatever it sees
    save_file(network.state_dict(), "w.safetensors")
    trials, _ = plan(sweep(here, "own_nets:net"), "m", weights=Path("w.safetensors"))
    assert [trial.model for trial in trials] == ["own_nets:net@w.safetensors"] * 2
    check_ready(trials)
    for trial in trials:
        size, quality = run_trial(trial, here / "models", Stopwatch(lambda stage, share: None))
        assert quality is not None and (quality.images, quality.top1_original) == (30, 10)
    assert size.dense_macs / size.macs == pytest.approx(2, rel=0.05)


def test_no_two_tasks_train_a_network_of_one_name() -> None:
    names = [model for task in TASKS.values() for model in task.baselines]
    assert len(names) == len(set(names))
    assert all(baseline.recipe.name == model for task in TASKS.values() for model, baseline in task.baselines.items())
