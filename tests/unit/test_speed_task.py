"""Speed-only rows: any network of the zoos, ranks from one fraction, factors drawn and never fitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.method import Job, LayerMethod
from lowrank_bench.compression.registry import method_class
from lowrank_bench.reading import read_records
from lowrank_bench.record import TrialRecord
from lowrank_bench.running.stages import run_trial
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.running.sweep import Sweep
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.zoo import Wanted, build_zoo_model, check_zoo_model
from lowrank_bench.trial import BROUGHT

RESNET = "torchvision:resnet18"


def test_the_zoos_give_the_same_network_at_every_call() -> None:
    first, second = (build_zoo_model(RESNET) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training


def test_a_part_runs_alone() -> None:
    part = build_zoo_model("torchvision:vgg11/features")
    assert lrb.count(part, (3, 224, 224)).macs < lrb.count(build_zoo_model("torchvision:vgg11"), (3, 224, 224)).macs
    with pytest.raises(lrb.InvalidInput, match="its parts are features, avgpool, classifier"):
        build_zoo_model("torchvision:vgg11/feature")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:resnet81", "did you mean 'resnet18'"),
        ("timm:mobilenetv3_smal_100", "did you mean 'mobilenetv3_small_100'"),
        ("resnet18", "timm:NAME, torchvision:NAME"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, words: str) -> None:
    with pytest.raises(lrb.UnknownName, match=words):
        check_zoo_model(name)


@pytest.mark.parametrize("name", ["torchvision:googlenet", "timm:test_convnext"])
def test_networks_with_and_without_heads_for_training_give_one_output(name: str) -> None:
    with torch.no_grad():
        assert build_zoo_model(name)(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_weights_from_a_file_compute_what_the_library_computes_with_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = models.get_model_builder(name)
    published = builder(init_weights=False, transform_input=True, aux_logits=True)  # as with weights="DEFAULT"
    nn.init.zeros_(published.fc.bias)  # it would hide what comes through random layers
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    images = torch.randn(1, 3, 299, 299)
    with torch.inference_mode():
        wanted = published.eval()(images)
        loaded = get_task("speed:3x299x299").load(f"torchvision:{name}@{tmp_path / 'w.safetensors'}")
        assert (loaded(images) - wanted).norm() <= 1e-4 * wanted.norm()
    monkeypatch.setattr(models, "get_model", lambda *_, **__: published.train())
    pretrained = build_zoo_model(f"torchvision:{name}", Wanted(pretrained=True)).train()
    assert isinstance(pretrained(images.expand(2, -1, -1, -1)), torch.Tensor)


@pytest.mark.parametrize("align", [1, 16])
@pytest.mark.parametrize("method", ["channel_svd", "cp_nls", "denton", "jaderberg", "tt_conv", "tucker"])
def test_budgets_are_met_without_fitting_anything(method: str, align: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = method_class(method)(align=align)
    assert isinstance(made, LayerMethod)
    monkeypatch.setattr(made, "errors", lambda *_: pytest.fail("random weights were looked at"))
    model = build_zoo_model(RESNET)
    compressed = made.compress(model, Job((3, 224, 224), lrb.Budget(macs=3), speed_only=True))
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(3, rel=0.05)
    assert all(layer.error is None for layer in compressed.plan.layers.values())
    with torch.no_grad():
        assert torch.isfinite(compressed.model(torch.randn(1, 3, 224, 224))).all()


def test_neither_values_nor_images_are_looked_at_where_weights_mean_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    nn.init.constant_(model[0].weight, torch.nan)
    for how in ({"ranks": 2}, {"budget": lrb.Budget(macs=2)}):
        made = method_class("tucker")(metric="covariance").compress(model, Job((8, 12, 12), speed_only=True, **how))
        assert made.plan.layers and all(layer.error is None for layer in made.plan.layers.values())


def test_aligned_candidates_are_multiples_or_full() -> None:
    made = method_class("jaderberg")(align=16)
    assert isinstance(made, LayerMethod)
    ranks = [rank for (rank,) in made.aligned_candidates(KernelShape(40, 30, 3, 3))]
    assert ranks == [16, 32, 48, 64, 80, 90]


@pytest.mark.parametrize(
    ("method", "options"),
    [("depthwise_separable", {}), ("jaderberg", {"scheme": 1}), ("tucker", {}), ("channel_svd", {})],
)
def test_a_layer_whose_ranks_cannot_reach_the_step_is_free_of_it_so_that_budgets_are_met(
    method: str, options: dict[str, object]
) -> None:
    made = method_class(method)(align=16, **options)
    assert isinstance(made, LayerMethod)
    shape = KernelShape(8, 8, 3, 3)
    assert made.aligned_candidates(shape) == made.candidates(shape)
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, padding=1))
    lrb.compress(model, method, lrb.Budget(macs=1.7), options={"align": 16} | options, input_size=(8, 12, 12))


def test_a_trial_stores_a_plan_and_no_weights_and_loads_again(tmp_path: Path) -> None:
    sweep = Sweep.model_validate(
        {
            "sweep": {
                "task": "speed",
                "models": [RESNET],
                "methods": ["tucker"],
                "budgets": [{"macs": 4}],
                "recipe": "none",
            },
        }
    )
    trial = sweep.trials()[1]
    size, quality = run_trial(trial, tmp_path, Stopwatch(lambda stage, share: None))
    assert quality is None
    assert size.dense_macs / size.macs == pytest.approx(4, rel=0.05)
    assert [path.name for path in (tmp_path / trial.key).iterdir()] == ["plan.json"]
    again = lrb.load(tmp_path / trial.key, get_task("speed").load(RESNET), values=False)
    assert lrb.count(again.model, (3, 224, 224)).macs == size.macs
    once_more = lrb.load(tmp_path / trial.key, get_task("speed").load(RESNET), values=False)
    values = once_more.model.state_dict()  # or the processes that time it could not share what they export
    assert all(torch.equal(value, values[name]) for name, value in again.model.state_dict().items())


def test_there_is_nothing_to_tune_on() -> None:
    table = {"task": "speed", "models": [RESNET], "methods": ["tucker"], "budgets": [{"macs": 4}], "recipe": "short"}
    with pytest.raises(lrb.InvalidSweep, match="has no images to tune on: use 'none'"):
        Sweep.model_validate({"sweep": table}).trials()


def test_gathers_are_drawn_too(tmp_path: Path) -> None:
    model = build_zoo_model(RESNET)
    made = method_class("denton")().compress(model, Job((3, 224, 224), lrb.Budget(macs=3), speed_only=True))
    made.save(tmp_path, values=False)
    again = lrb.load(tmp_path, model, values=False)
    assert again.model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_a_network_of_ones_own_is_timed_at_the_size_that_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = ("from torch import nn", "def net():", "    return nn.Conv2d(1, 4, 3)", "net.input_size = (1, 20, 24)", "")
    deep = ("def deep():", "    return nn.Conv2d(64, 4, 3)", "deep.input_size = (64, 7, 7)", "deep.mean = 'none'", "")
    odd = ("def odd():", "    return nn.Conv2d(3, 4, 3)", "odd.input_size = 64", "")
    (tmp_path / "declared_nets.py").write_text(
        "\n".join((*lines, *deep, *odd, "def silent():", "    return nn.Conv2d(3, 4, 3)"))
    )
    model = "declared_nets:net"
    assert get_task("speed", model).input_size == (1, 20, 24)
    get_task("speed", model).check_ready(model)
    assert get_task("speed:1x9x9", model).input_size == (1, 9, 9)
    assert get_task("speed", "declared_nets:silent").input_size == (3, 224, 224)
    assert get_task("speed", "declared_nets:deep").input_size == (64, 7, 7)
    with pytest.raises(lrb.InvalidInput, match=r"its input_size = 64: \(channels, height, width\) are wanted"):
        get_task("speed", "declared_nets:odd")
    # what was timed at 224 x 224 has another key
    same_code = get_task("speed").brought("declared_nets:silent")
    assert same_code == get_task("speed:1x9x9").brought(model) != get_task("speed").brought(model)


def test_the_keys_of_published_speed_rows_are_those_they_have(tmp_path: Path) -> None:
    published, looked_at = Path(__file__).parents[2] / "results" / "published", 0
    for file in published.glob("*.jsonl"):
        for record in read_records(file):
            if isinstance(record, TrialRecord) and record.trial.task.startswith("speed"):
                found = get_task(record.trial.task).brought(record.trial.model)
                assert record.trial.versions.get(BROUGHT, 0) == found
                assert get_task(record.trial.task).version == record.trial.versions["task"]
                looked_at += 1
    assert looked_at > 100


def test_a_budget_that_aligned_ranks_put_out_of_reach_names_the_option() -> None:
    model, budget = nn.Sequential(nn.Conv2d(24, 24, 3), nn.Conv2d(24, 24, 3, padding=1)), lrb.Budget(macs=6)
    with pytest.raises(lrb.InvalidBudget, match=r"allow is .*; a smaller align than 16 reaches more"):
        lrb.compress(model, "channel_svd", budget, options={"align": 16}, input_size=(24, 12, 12))
    lrb.compress(model, "channel_svd", budget, input_size=(24, 12, 12))
    with pytest.raises(lrb.InvalidBudget) as told:
        lrb.compress(model, "channel_svd", lrb.Budget(macs=600), input_size=(24, 12, 12))
    assert "align" not in str(told.value)
