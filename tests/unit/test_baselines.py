"""Networks that tasks train themselves: once, by their recipe, from where a training was cut short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import stand_ins
import torch
from safetensors.torch import save_file
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.history import History
from lowrank_bench.recipe import Recipe
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.checkpoint import checkpoint_facts, save_checkpoint
from lowrank_bench.tasks.fashion_mnist import FashionMnist
from lowrank_bench.training import baselines
from lowrank_bench.training.baselines import train_model
from lowrank_bench.training.evaluate import predictions

TINY = Recipe(name="resnet18", epochs=3, images_per_epoch=128, batch_size=64, learning_rate=3e-3)


def tiny() -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), head)


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(stand_ins.fashion_mnist(tmp_path / "data")))
    baseline = replace(FashionMnist.baselines["resnet18"], build=tiny, recipe=TINY)
    monkeypatch.setattr(FashionMnist, "baselines", {"resnet18": baseline})


@pytest.mark.parametrize("name", ["resnet18", "vgg11_narrow", "allconv", "convfc"])
def test_every_network_takes_the_tasks_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = FashionMnist().build(name)
    assert model.training
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert FashionMnist.baselines[name].expected > 90


def test_a_network_is_trained_once_and_loaded_by_its_task() -> None:
    with pytest.raises(lrb.DataMissing, match="lowrank-bench train resnet18"):
        FashionMnist().load("resnet18")
    first, again = train_model("fashion_mnist", "resnet18"), train_model("fashion_mnist", "resnet18")
    assert first.seconds is not None and again.seconds is None
    assert first.path == again.path and first.top1 == again.top1
    assert list(first.path.parent.iterdir()) == [first.path]
    facts = checkpoint_facts(first.path)
    assert facts["top1"] == first.top1 and Recipe.model_validate(facts["recipe"]) == TINY and len(facts["epochs"]) == 3
    assert not FashionMnist().load("resnet18").training


def test_other_weights_of_a_network_are_another_trial_however_long_they_took_and_the_package_s_own_are_none() -> None:
    task, path = FashionMnist(), train_model("fashion_mnist", "resnet18").path
    before, file = task.brought("resnet18"), path.read_bytes()
    path.unlink()
    path.with_name(path.name + ".resume").unlink(missing_ok=True)
    train_model("fashion_mnist", "resnet18")
    assert path.read_bytes() != file  # it tells the seconds of each epoch
    assert task.brought("resnet18") == before
    save_checkpoint(tiny(), path, top1={})
    assert task.brought("resnet18") != before
    assert get_task("chars36").brought("charnet") == 0


def test_another_recipe_or_seed_is_another_file() -> None:
    baseline = FashionMnist.baselines["resnet18"]
    other = replace(baseline, recipe=TINY.model_copy(update={"epochs": 4}))
    places = {b.path("fashion_mnist", 1, "resnet18", seed) for b in (baseline, other) for seed in (0, 1)}
    assert len(places) == 4


def test_a_training_that_was_cut_short_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    whole = train_model("fashion_mnist", "resnet18", tmp_path / "whole.safetensors")
    steps = []

    def interrupt(step: int, total: int, loss: float) -> None:
        steps.append(step)
        if step == 5:  # in the third epoch of two steps each
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model("fashion_mnist", "resnet18", progress=interrupt)
    resumed = train_model("fashion_mnist", "resnet18", progress=lambda step, total, loss: steps.append(step))
    assert steps == [1, 2, 3, 4, 5, 5, 6]
    assert resumed.top1 == whole.top1
    assert not list(resumed.path.parent.glob("*.resume*"))


def test_the_accuracy_is_that_of_the_weights_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def tilt(model: nn.Module, *_: object, **__: object) -> History:
        with torch.no_grad():
            model[3][2].weight.zero_()
            model[3][2].bias.copy_(1 + 1e-5 * torch.arange(10.0))  # class 9, and in float16 all alike: class 0
        return History()

    seen: list[list[int]] = []
    monkeypatch.setattr(baselines, "train", tilt)
    monkeypatch.setattr(baselines, "top1", lambda *given: seen.append(predictions(*given).unique().tolist()) or 0.0)
    train_model("fashion_mnist", "resnet18")
    written = predictions(FashionMnist().load("resnet18"), FashionMnist().batches("test"))
    assert seen == [[0], [0]] and written.unique().tolist() == [0]


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blow_up(model: nn.Module, *_: object, **__: object) -> History:
        model[1].running_var.fill_(1e6)
        return History()

    monkeypatch.setattr(baselines, "train", blow_up)
    with pytest.raises(lrb.InvalidWeights, match=r"1.running_var .* float16 cannot hold, up to 1e\+06"):
        train_model("fashion_mnist", "resnet18", tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("left", ["bytes", "no facts", "other facts"])
def test_damaged_weights_in_the_cache_are_named_with_the_remedy(left: str) -> None:
    path = FashionMnist.baselines["resnet18"].path("fashion_mnist", 1, "resnet18")
    path.parent.mkdir(parents=True)
    if left == "bytes":
        path.write_bytes(b"damaged")
        with pytest.raises(lrb.InvalidWeights, match=r"remove it, then make it with `lowrank-bench train resnet18`"):
            FashionMnist().load("resnet18")
    else:
        save_file({"a": torch.zeros(1)}, path, {"top1": "3"} if left == "other facts" else None)
    with pytest.raises(
        lrb.InvalidWeights, match=r"safetensors (is damaged|does not tell).*remove it, then train again"
    ):
        train_model("fashion_mnist", "resnet18")


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(lrb.InvalidInput, match="--seed -1: a whole number from 0"):
        train_model("fashion_mnist", "resnet18", seed=-1)


def test_an_accuracy_below_what_was_expected_is_told() -> None:
    trained = train_model("fashion_mnist", "resnet18")
    assert trained.expected == 92.5
    for top1, as_expected in ((92.4, False), (92.5, True)):
        assert replace(trained, top1={"test": top1}).as_expected == as_expected


def test_names_that_do_not_exist_are_answered_with_the_nearest() -> None:
    with pytest.raises(lrb.UnknownName, match="did you mean 'resnet18'"):
        train_model("fashion_mnist", "resnet19")
