"""The stages of a trial on a toy task: which model is judged before tuning, which after, and which is saved."""

import numpy as np
import pytest
import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.running import stages
from lowrank_bench.running.stages import run_trial
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.tasks import catalog
from lowrank_bench.tasks.task import Task
from lowrank_bench.training import recipes
from lowrank_bench.training.evaluate import predictions
from lowrank_bench.training.recipes import get_recipe
from lowrank_bench.trial import Trial

RANKS = {"0": 1, "2": 2}


class Toy(Task):
    """Two classes, told apart by the sign of the mean."""

    name, version, classes, input_size, models = "toy", 1, 2, (4, 8, 8), ("net",)

    def batches(self, split, batch_size=256, *, seed=0, epoch=0, limit=None):
        generator = torch.Generator().manual_seed(epoch if split == "train" else 100)
        labels = torch.randint(2, (256,), generator=generator)
        images = torch.randn(256, *self.input_size, generator=generator) + 0.2 * (labels - 0.5)[:, None, None, None]
        yield from zip(images.split(batch_size), labels.split(batch_size), strict=True)

    def group_sizes(self, split):
        return None

    def build(self, model):
        return nn.Sequential(
            nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)
        )

    def load(self, model):
        torch.manual_seed(0)
        return self.build(model).eval()


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(catalog.TASKS, "toy", Toy)
    for name in ("standard", "frozen", "lebedev", "vanishing", "slices"):
        tiny = get_recipe(name).model_copy(update={"images_per_epoch": 256, "batch_size": 32, "learning_rate": 3e-3})
        monkeypatch.setitem(recipes.RECIPES, name, tiny)


def test_after_each_epoch_a_part_of_many_validation_images_is_looked_at(tmp_path, monkeypatch):
    asked = []

    def batches(self, split, batch_size=256, *, limit=None, **rest):
        asked.append((split, limit))
        return told(self, split, batch_size, **rest)

    told = Toy.batches
    monkeypatch.setattr(Toy, "batches", batches)
    result(tmp_path, "standard")
    assert ("validation", 10_000) in asked and ("test", None) in asked
    assert all(limit == 10_000 for split, limit in asked if split == "validation")


def result(folder, recipe, method="channel_svd", told=lambda stage, share: None):
    trial = Trial(task="toy", model="net", method=method, ranks=RANKS, recipe=recipe)
    size, quality = run_trial(trial, folder, Stopwatch(told))
    return trial, size, quality


@pytest.mark.parametrize("recipe", ["standard", "frozen", "lebedev"])
def test_before_is_all_layers_factored_at_once_and_after_is_the_model_that_is_saved(recipe, tmp_path):
    trial, size, quality = result(tmp_path, recipe)
    task = Toy()
    at_once = lrb.compress(task.load("net"), "channel_svd", ranks=RANKS, input_size=task.input_size)
    images, labels = next(task.batches("test"))
    with torch.inference_mode():
        assert quality.top1_before == 100 * float((at_once.model(images).argmax(1) == labels).double().mean())
    saved = lrb.load(tmp_path / trial.key, task.load("net"))
    hits = (predictions(saved.model, task.batches("test")) == labels).numpy()
    assert quality.top1_after == 100 * np.mean(hits)
    assert {name: layer.error for name, layer in size.layers.items()} == {
        name: layer.error for name, layer in saved.plan.layers.items()
    }
    assert len(quality.epochs) == 3


@pytest.mark.parametrize("recipe", ["standard", "lebedev"])
def test_the_control_trains_as_long_as_what_it_is_the_control_of(recipe, tmp_path):
    shares = {"channel_svd": [], "identity": []}
    for method, told in shares.items():
        result(tmp_path, recipe, method, lambda stage, share, told=told: told.append((stage, share)))
    tuning = [[share for stage, share in told if stage == "finetune"] for told in shares.values()]
    assert tuning[0] == tuning[1]
    assert tuning[0][-1] == 1


def test_a_method_that_cannot_follow_a_recipe_says_so_before_any_work(tmp_path):
    stages = []
    with pytest.raises(lrb.UnsupportedLayer, match="does not work layer by layer"):
        result(tmp_path, "lebedev", "lowrank_training", lambda stage, share: stages.append(stage))
    assert stages == []


def test_a_method_that_trains_by_labels_is_refused_a_recipe_without_them(tmp_path):
    with pytest.raises(lrb.UnsupportedLayer, match=r"'lowrank_training' .* recipe 'slices' takes no labels"):
        result(tmp_path, "slices", "lowrank_training")


class Killed(BaseException):
    """Stands for a kill."""


def kill(*_, **__):
    raise Killed


def numbers(quality):
    """All but how long it took."""
    told = {kind: [(e.loss, e.validation_top1) for e in getattr(quality, kind)] for kind in ("epochs", "method_epochs")}
    return quality.model_copy(update=told)


@pytest.mark.parametrize("recipe", ["standard", "lebedev"])
@pytest.mark.parametrize("killed_in", ["_recalibrate", "predicted_and_true", "tune", "_quality"])
def test_a_trial_that_was_killed_goes_on_after_its_last_finished_stage(recipe, killed_in, tmp_path, monkeypatch):
    _, size, quality = result(tmp_path / "whole", recipe)
    with monkeypatch.context() as patch:
        patch.setattr(stages, killed_in, kill)
        with pytest.raises(Killed):
            result(tmp_path / "cut", recipe)
    monkeypatch.setattr(lrb.methods()["channel_svd"], "compress", kill)  # it has finished, and is not done again
    if killed_in == "_quality":
        monkeypatch.setattr(stages, "tune", kill)
    trial, again, same = result(tmp_path / "cut", recipe)
    assert (again, numbers(same)) == (size, numbers(quality))
    stages.remove_stages(tmp_path / "cut", trial.key)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {trial.key, f"{stages.original_name(trial)}.npy"}


def test_a_finished_stage_of_other_source_or_with_damaged_files_is_done_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stages, "tune", kill)
        with pytest.raises(Killed):
            result(tmp_path, "standard")
    (weights,) = tmp_path.glob("*.stages/*/compressed/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    told = []
    with monkeypatch.context() as patch:
        patch.setattr(stages, "tune", kill)
        with pytest.raises(Killed):
            result(tmp_path, "standard", told=lambda stage, share: told.append(stage))
    assert "decompose" in told
    monkeypatch.setattr(stages, "source_of", lambda method: "edited")
    told.clear()
    result(tmp_path, "standard", told=lambda stage, share: told.append(stage))
    assert "decompose" in told


@pytest.mark.parametrize("left", [b"", b"\x93NUMPY\x01", b"not an array"])
def test_damaged_predictions_of_the_dense_model_are_made_again(left, tmp_path):
    _, size, quality = result(tmp_path, "none")
    (cache,) = tmp_path.glob("*.npy")
    whole = cache.read_bytes()
    cache.write_bytes(left)
    assert result(tmp_path, "none")[1:] == (size, quality)
    assert cache.read_bytes() == whole


def test_the_seconds_of_stages_that_were_finished_before_are_counted(tmp_path, monkeypatch):
    trial = Trial(task="toy", model="net", method="channel_svd", ranks=RANKS, recipe="standard")
    first, second = (Stopwatch(lambda stage, share: None) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(stages, "_quality", kill)
        with pytest.raises(Killed):
            run_trial(trial, tmp_path, first)
    run_trial(trial, tmp_path, second)
    assert second.seconds["finetune"] == first.seconds["finetune"]
    assert second.seconds["decompose"] == first.seconds["decompose"]


def broken_net(change):
    net = Toy().load("net")
    with torch.no_grad():
        change(net)
    return net


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda net: net[2].weight.view(-1)[:1].fill_(float("nan")), lrb.Diverged, "'2.weight'"),
        (lambda net: net.append(nn.Linear(2, 3)), lrb.NonConforming, r"\(2, 3\) where the dense model's is \(2, 2\)"),
        (lambda net: net.insert(1, nn.Conv2d(5, 8, 1)), lrb.NonConforming, "does not run"),
    ],
)
def test_what_a_method_returns_is_looked_at_before_it_is_judged(change, error, words):
    with pytest.raises(error, match=words):
        stages.check_compressed(broken_net(change), Toy().load("net"), Toy.input_size)


def assert_same_weights(*folders):
    models = [lrb.load(folder, Toy().load("net")).model for folder in folders]
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


@pytest.mark.parametrize("recipe", ["standard", "lebedev", "vanishing", "slices"])
def test_tuning_that_was_cut_short_goes_on_from_its_last_epoch(recipe, tmp_path):
    trial, _, whole = result(tmp_path / "whole", recipe)

    def interrupt(stage, share):
        if stage == "finetune" and share > 0.5:
            raise Killed

    with pytest.raises(Killed):
        result(tmp_path / "cut", recipe, told=interrupt)
    shares = []
    watch = Stopwatch(lambda stage, share: shares.append((stage, share)))
    _, rest = run_trial(trial, tmp_path / "cut", watch)
    assert min(share for stage, share in shares if stage == "finetune" and share) > 1 / 3
    assert numbers(rest) == numbers(whole)
    assert watch.seconds["finetune"] >= sum(epoch.seconds for epoch in rest.epochs)
    assert_same_weights(tmp_path / "whole" / trial.key, tmp_path / "cut" / trial.key)


@pytest.mark.parametrize("recipe", ["distilled", "long"])
def test_a_recipe_that_distils_learns_from_the_dense_model(recipe, tmp_path, monkeypatch):
    tiny = get_recipe(recipe).model_copy(update={"epochs": 2, "images_per_epoch": 64, "batch_size": 32})
    monkeypatch.setitem(recipes.RECIPES, recipe, tiny)
    for method in ("channel_svd", "identity"):
        _, _, quality = result(tmp_path, recipe, method)
        assert len(quality.epochs) == 2


TRAINING_METHODS = {
    "narrow": {"scratch_recipe": "standard"},
    "depthwise_separable": {"start": "scratch", "scratch_recipe": "standard"},
    "lowrank_training": {"regularizer": "lc", "scheme": "channel", "every": 3},
}


@pytest.mark.parametrize(("method", "options"), TRAINING_METHODS.items(), ids=TRAINING_METHODS)
def test_training_within_a_method_goes_on_from_its_last_epoch_and_is_recorded(method, options, tmp_path):
    trial = Trial(task="toy", model="net", method=method, options=options, budget=lrb.Budget(macs=2), recipe="standard")
    told = []
    whole, cut = Stopwatch(lambda stage, share: None), Stopwatch(lambda stage, share: told.append((stage, share)))
    _, quality = run_trial(trial, tmp_path / "whole", whole)
    assert len(quality.method_epochs) == len(quality.epochs) == 3
    assert whole.seconds["decompose"] >= sum(epoch.seconds for epoch in quality.method_epochs)
    assert all(0 <= epoch.validation_top1 <= 100 for epoch in quality.method_epochs)

    def interrupt(stage, share):
        if stage == "decompose" and share > 0.7:
            raise Killed

    with pytest.raises(Killed):
        run_trial(trial, tmp_path / "cut", Stopwatch(interrupt))
    _, again = run_trial(trial, tmp_path / "cut", cut)
    assert min(share for stage, share in told if stage == "decompose" and share) > 2 / 3
    assert numbers(again) == numbers(quality)
    assert cut.seconds["decompose"] >= sum(epoch.seconds for epoch in again.method_epochs)
    assert_same_weights(tmp_path / "whole" / trial.key, tmp_path / "cut" / trial.key)


def test_a_method_that_does_not_train_records_no_epoch_of_its_own(tmp_path):
    assert result(tmp_path, "none")[2].method_epochs == []
