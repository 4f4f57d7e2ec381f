"""The order of a network's layers, and why some stayed dense, read off records."""

from __future__ import annotations

import pytest
from synthetic_records import trial, trial_record
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.reporting.figures.layer_order import network_order, stayed_dense


def test_layers_stand_in_the_networks_order_as_far_as_records_tell():
    def size(layers, skipped=None):
        made = trial_record(trial("tucker", 4)).size
        update = {"layers": dict.fromkeys(layers, made.layers["conv2"]), "skipped": skipped or {}}
        return made.model_copy(update=update)

    met = "the budget macs/4 is met with it dense"
    resnet = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 10) for block in (0, 1)]
    refused = size(resnet, {"fc": "tucker leaves linear layers dense", "conv1": met})
    assert network_order([refused, size(["layer2.0.conv1", "layer10.0.conv1"])]) == ["conv1", *resnet, "fc"]
    vgg = size(["features.2", "features.10"], {"features.0": met, "classifier.0": met})
    assert network_order([vgg]) == ["features.0", "features.2", "features.10", "classifier.0"]
    assert network_order([size(["b", "a"]), size(["a", "b"])]) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:jaderberg left every layer as it is")
@pytest.mark.parametrize("job", [{"budget": lrb.Budget(macs=1.2)}, {"ranks": {"1": 2}}, {"ranks": "energy:0.999"}])
def test_a_layer_that_ranks_left_dense_is_told_from_one_that_the_method_does_not_take(job):
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 64, 10)]
    skipped = lrb.compress(nn.Sequential(*layers).eval(), "jaderberg", input_size=(3, 8, 8), **job).skipped
    assert {name: stayed_dense(reason) for name, reason in skipped.items() if name != "1"} == {"0": True, "3": False}
