"""The stages of a trial on a toy task: which model is judged before tuning, which after, and which is saved."""

import numpy as np
import pytest
import torch
from torch import nn

import lowrank_bench as lrb
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
    for name in ("standard", "frozen", "lebedev"):
        tiny = get_recipe(name).model_copy(update={"images_per_epoch": 256, "batch_size": 32, "learning_rate": 3e-3})
        monkeypatch.setitem(recipes.RECIPES, name, tiny)


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
