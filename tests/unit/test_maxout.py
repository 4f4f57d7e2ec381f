import pytest
import torch
from torch import nn

from lowrank_bench.api import compress
from lowrank_bench.compression.maxout import Maxout, PairedMaxout, pair_maxouts
from lowrank_bench.measurement.runtimes import RUNTIMES, prepare
from lowrank_bench.running.sweep import Sweep
from lowrank_bench.tasks.charnet import CharNet


def paired(model):
    return [name for name, module in model.named_modules() if isinstance(module, PairedMaxout)]


def test_maxout_takes_the_largest_of_consecutive_channels():
    x = torch.tensor([3.0, 1, 2, 5, 4, 0]).reshape(1, 6, 1, 1)
    assert Maxout(2)(x).flatten().tolist() == [3, 5, 4]
    assert Maxout(3)(x).flatten().tolist() == [3, 5]


@pytest.mark.parametrize("bias", [True, False])
def test_a_pair_is_its_convolution_and_maxout(bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 10, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), padding_mode="reflect", bias=bias)
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    conv.double()
    torch.testing.assert_close(PairedMaxout(conv)(x), Maxout(2)(conv(x)))


def test_charnet_gets_two_pairs_and_computes_the_same():
    torch.manual_seed(0)
    model = CharNet().double().eval()
    x = torch.randn(2, 1, 24, 24, dtype=torch.float64)
    logits = model(x)
    pair_maxouts(model)
    assert paired(model) == ["conv1", "conv2"]
    torch.testing.assert_close(model(x), logits)


def test_a_factored_layer_is_paired_at_its_last_convolution():
    model = compress(CharNet(), "cp_nls", ranks={"conv2": 8, "conv3": 8}, input_size=(1, 24, 24), recipe="none").model
    x = torch.randn(2, 1, 24, 24)
    logits = model(x)
    pair_maxouts(model)
    assert paired(model) == ["conv1", "conv2.3"]
    torch.testing.assert_close(model(x), logits)


class Shared(nn.Module):
    """Its maxout's input is read once more."""

    def __init__(self):
        super().__init__()
        self.conv, self.maxout = nn.Conv2d(16, 32, 1), Maxout(2)

    def forward(self, x):
        y = self.conv(x)
        return self.maxout(y) + y.sum()


class Twice(Shared):
    """Its convolution and its maxout are called twice."""

    def forward(self, x):
        return self.maxout(self.conv(self.maxout(self.conv(x))))


@pytest.mark.parametrize(
    "model",
    [
        Shared(),
        Twice(),
        nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), Maxout(2)),
        nn.Sequential(nn.Conv2d(16, 32, 1, groups=2), Maxout(2)),
        nn.Sequential(nn.Conv2d(16, 32, 1), Maxout(4)),
        nn.Sequential(nn.Conv2d(16, 48, 1), Maxout(2)),
        nn.Sequential(Maxout(2)),
    ],
    ids=["read twice", "called twice", "something between", "groups", "four pieces", "narrow", "no convolution"],
)
def test_what_is_no_pair_stays(model):
    x = torch.randn(1, 16, 3, 3)
    before = model(x)
    pair_maxouts(model)
    assert not paired(model)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if RUNTIMES[name].arithmetic == "float32"])
def test_a_runtime_computes_what_the_model_does_and_leaves_it(runtime):
    if missing := RUNTIMES[runtime].missing():
        pytest.skip(missing)
    model, x = CharNet().eval(), torch.randn(2, 1, 24, 24)
    prepared = prepare(runtime, model, x, 1)
    assert prepared.output_error < 1e-5
    assert not paired(model)


def test_what_is_timed_is_paired(monkeypatch):
    calls = []
    forward = PairedMaxout.forward
    monkeypatch.setattr(PairedMaxout, "forward", lambda self, x: calls.append(self) or forward(self, x))
    prepare("eager", CharNet().eval(), torch.randn(2, 1, 24, 24), 1).run()
    assert len(set(calls)) == 2


def test_timings_of_the_unpaired_form_do_not_count():
    timed = {"measure": {"runtimes": ["eager"]}}
    versions = {}
    for task, model in (("chars36", "charnet"), ("speed", "torchvision:alexnet")):
        table = {"task": task, "models": [model], "methods": ["identity"], "budgets": [{"macs": 2}], "recipe": "none"}
        sweep = Sweep.model_validate({"sweep": table, **timed})
        versions[task] = {each.version for each in sweep.measurements(sweep.trials("m"), "m", 1)}
    assert versions == {"chars36": {2}, "speed": {1}}
