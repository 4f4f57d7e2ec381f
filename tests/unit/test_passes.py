"""Networks that reach their layers in unusual ways are taken as they are, or refused by name; none is changed."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import lowrank_bench as lrb

SIZE = (3, 16, 16)
HALF = lrb.Budget(macs=2)


def net(*last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *(last or (nn.Linear(64, 10),))).eval()


def images() -> Tensor:
    return torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))


class Listed(nn.Module):
    """Its layers are registered, and called through a list."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3)
        self.layers = [self.a, self.b]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


@pytest.mark.parametrize("budget", [HALF, lrb.Budget(params=2)], ids=str)
def test_layers_that_are_called_through_a_list_are_named(budget: lrb.Budget) -> None:
    with pytest.raises(lrb.UnsupportedLayer, match=r"layer 'b' is not called as the submodule.*nn.ModuleList"):
        lrb.compress(Listed(), "tucker", budget, input_size=SIZE)


@pytest.mark.parametrize("name", ["forward", "_conv_forward"])
def test_a_layer_whose_forward_was_replaced_stays_dense(name: str) -> None:
    def circular(self: nn.Conv2d, x: Tensor, *_: object) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), self.weight, self.bias)

    model = net()
    setattr(model[2], name, types.MethodType(circular, model[2]))
    made = lrb.compress(model, "tucker", ranks="full", input_size=SIZE)
    assert "forward was replaced" in made.skipped["2"]
    torch.testing.assert_close(made.model(images()), model(images()))


def test_a_layer_of_complex_numbers_is_refused() -> None:
    with pytest.raises(lrb.UnsupportedLayer, match="complex64, and kernels of real numbers"):
        lrb.factorize(nn.Conv2d(4, 8, 3, dtype=torch.complex64), "tucker", "full")


def test_a_parametrized_layer_is_refused_with_what_to_do() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 3))
    with pytest.raises(lrb.UnsupportedLayer, match="remove the parametrizations first"):
        lrb.factorize(layer, "tucker", "full")


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_layer_whose_hooks_know_its_width_is_not_made_narrow() -> None:
    model = net()
    nn.utils.weight_norm(model[2])
    with pytest.raises(lrb.UnsupportedLayer, match=r"2 carries forward pre-hooks, such as weight norm's.*remove them"):
        lrb.compress(model, "narrow", HALF, input_size=SIZE, options={"scratch_recipe": "none"})


def test_a_model_that_keeps_its_activations_is_told_to_drop_them() -> None:
    model = net()
    model.kept = [model(images())]  # type: ignore[assignment]
    with pytest.raises(lrb.InvalidInput, match=r"holds what cannot be copied .*take out of its attributes"):
        lrb.compress(model, "tucker", HALF, input_size=SIZE)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("options", [{}, {"metric": "covariance"}, {"metric": "mahalanobis"}])
def test_gradients_that_are_off_outside_change_nothing(mode: type, options: dict[str, str]) -> None:
    labels = torch.tensor([1, 2])
    job = {"ranks": 4, "options": options, "input_size": SIZE, "data": [(images(), labels)] if options else None}
    layer = nn.Conv2d(4, 8, 3)
    expected = lrb.compress(net(), "tucker", **job).model(images())  # type: ignore[arg-type]
    with mode():
        made = lrb.compress(net(), "tucker", **job).model  # type: ignore[arg-type]
        factored = lrb.factorize(layer, "tucker", 3)
    torch.testing.assert_close(made(images()), expected)
    made(images()).sum().backward()
    factored(torch.randn(1, 4, 5, 5)).sum().backward()
    assert all(parameter.grad is not None for parameter in (*made.parameters(), *factored.parameters()))


def test_slips_in_arguments_are_named(tmp_path: Path) -> None:
    made = lrb.compress(net(), "tucker", HALF, input_size=SIZE)
    made.save(tmp_path)
    with pytest.raises(lrb.InvalidInput, match=r"of type str, and a torch\.nn.Module is wanted"):
        lrb.load(tmp_path, "resnet18")  # type: ignore[arg-type]
    with pytest.raises(lrb.InvalidInput, match=r"give its \.model"):
        lrb.load(tmp_path, made)  # type: ignore[arg-type]
    with pytest.raises(lrb.InvalidOptions, match="a mapping is wanted"):
        lrb.compress(net(), "tucker", HALF, options=["align"], input_size=SIZE)  # type: ignore[arg-type]
    with pytest.raises(lrb.InvalidInput, match="three positive integers, got 16"):
        lrb.measure_speedup(net(), net(), 16)  # type: ignore[arg-type]
    with pytest.raises(lrb.InvalidInput, match="compressed model is on device 'meta'"):
        lrb.measure_speedup(net(), net().to("meta"), SIZE)


def test_ranks_that_name_no_layer_warn_and_an_array_is_as_good_as_a_tuple() -> None:
    with pytest.warns(UserWarning, match="tucker left every layer as it is"):
        lrb.compress(net(), "tucker", ranks={}, input_size=SIZE)
    arrayed = lrb.compress(net(), "tucker", ranks=np.array([3, 3]), input_size=SIZE)  # type: ignore[arg-type]
    assert arrayed.plan == lrb.compress(net(), "tucker", ranks=(3, 3), input_size=SIZE).plan


def test_what_is_made_of_a_layer_is_not_the_layer() -> None:
    layer = nn.Conv2d(4, 8, 3, dtype=torch.float64)
    lrb.compose(layer).zero_()
    assert layer.weight.any()
    factored = lrb.factorize(layer, "tucker", "full")
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert type(factored[:2]) is nn.Sequential and factored[0] is next(iter(factored))
    torch.testing.assert_close(factored[2:](factored[:2](x)), layer(x))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("change", [lambda layer: prune.l1_unstructured(layer, "weight", 0.5), nn.utils.weight_norm])
@pytest.mark.parametrize("method", ["tucker", "identity"])
def test_weights_that_a_hook_computes_are_copied_and_stay(change: object, method: str) -> None:
    model = net()
    change(model[2])  # type: ignore[operator]
    ranks = {"0": (2, 3)} if method == "tucker" else None
    made = lrb.compress(model, method, ranks=ranks, input_size=SIZE)
    if method == "tucker":
        assert "forward hooks" in made.skipped["2"]
    torch.testing.assert_close(made.model[2](torch.ones(1, 32, 4, 4)), model[2](torch.ones(1, 32, 4, 4)))


@pytest.mark.parametrize("hook", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_layer_whose_backward_hook_would_be_lost_stays_dense(hook: str) -> None:
    model = net()
    getattr(model[2], hook)(lambda *_: None)
    made = lrb.compress(model, "tucker", ranks={"0": (2, 3)}, input_size=SIZE)
    assert "backward hooks" in made.skipped["2"]
    with pytest.raises(lrb.UnsupportedLayer, match="backward hooks"):
        lrb.factorize(model[2], "tucker", "full")


@pytest.mark.parametrize("method", ["tucker", "identity", "narrow"])
def test_what_comes_back_is_in_eval_mode_and_what_was_given_keeps_its_own(method: str) -> None:
    model = net().train()
    made = lrb.compress(model, method, None if method == "identity" else HALF, input_size=SIZE, speed_only=True)
    assert model.training and not any(module.training for module in made.model.modules())


@pytest.mark.parametrize("read", ["out_channels", "bias", "weight"])
def test_a_layer_of_which_the_network_reads_more_than_its_outputs_stays_dense(read: str) -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            found = getattr(self.net[2], read)
            return self.net(x) * (found if isinstance(found, int) else found.mean())

    made = lrb.compress(Reading(), "tucker", ranks={"net.0": (2, 3)}, input_size=SIZE)
    assert "other code there reads" in made.skipped["net.2"]


def test_the_model_keeps_its_buffers_and_a_lazy_one_is_told_to_run_first() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.net(x)

    model = Counting()
    lrb.compress(model, "tucker", HALF, input_size=SIZE)
    lrb.compress(model, "narrow", HALF, input_size=SIZE, speed_only=True)
    assert int(model.calls) == 0
    with pytest.raises(lrb.InvalidInput, match=r"lazy layers.*run it on an image first"):
        lrb.compress(nn.Sequential(nn.LazyConv2d(8, 3)), "tucker", HALF, input_size=SIZE)


class OwnLinear(nn.Linear):
    """As libraries have them."""


@pytest.mark.parametrize("hooked", [False, True])
def test_the_classes_stay_whatever_kind_of_layer_gives_them(hooked: bool) -> None:
    model = net(nn.Linear(64, 10) if hooked else OwnLinear(64, 10))
    if hooked:
        model[-1].register_forward_hook(lambda *_: None)
    made = lrb.compress(model, "narrow", HALF, input_size=SIZE, speed_only=True)
    assert made.model(images()).shape == (2, 10)
    assert made.dense_cost.macs / made.cost.macs == pytest.approx(2, rel=0.05)


def test_a_network_of_several_last_layers_is_not_made_narrow() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.one, self.other = net(nn.Identity()), nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.net(x)
            return torch.cat([self.one(x), self.other(x)], 1)

    with pytest.raises(lrb.UnsupportedLayer, match="'other', is not all that makes its outputs"):
        lrb.compress(Heads(), "narrow", HALF, input_size=SIZE, speed_only=True)


def test_a_network_without_layers_is_not_made_narrow() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.mT

    with pytest.raises(lrb.UnsupportedLayer, match="nothing to make narrow"):
        lrb.compress(Product(), "narrow", HALF, input_size=SIZE, speed_only=True)


def test_what_was_tied_is_tied_after_loading(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3)
            self.c.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).relu()).relu())

    made = lrb.compress(Tied(), "tucker", ranks={"a": (4, 3)}, input_size=SIZE)
    made.save(tmp_path)
    loaded = lrb.load(tmp_path, Tied())
    assert loaded.model.b.weight is loaded.model.c.weight
    assert lrb.count(loaded.model, SIZE) == made.cost
    torch.testing.assert_close(loaded.model(images()), made.model.eval()(images()))


def test_a_state_that_is_not_all_tensors_is_named_before_anything_is_written(tmp_path: Path) -> None:
    class Told(nn.Identity):
        def get_extra_state(self) -> object:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    made = lrb.compress(net(Told()), "tucker", ranks={"2": (4, 4)}, input_size=SIZE)
    with pytest.raises(lrb.UnsupportedLayer, match=r"'6\._extra_state' of the model is a dict"):
        made.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    made.save(tmp_path / "m", values=False)


def test_random_factors_come_from_the_seed() -> None:
    def drawn(seed: int) -> Tensor:
        made = lrb.compress(net(), "tucker", HALF, input_size=SIZE, speed_only=True, seed=seed)
        return torch.cat([p.flatten() for p in made.model.parameters()])

    first = drawn(0)
    assert torch.equal(first, drawn(0))
    assert not torch.equal(first, drawn(1))


def test_a_norm_that_takes_two_layers_takes_the_mean_of_neither() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(3, 8, 3, bias=False)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.a(x)) + self.norm(self.b(x))

    torch.manual_seed(0)
    model = Shared().eval()
    options = {"metric": "covariance", "centred": True}
    data = [(1 + images(), torch.zeros(2, dtype=torch.int64))]
    job = lrb.compress(model, "tucker", ranks={"a": (2, 2)}, options=options, input_size=SIZE, data=data)
    assert lrb.compose(job.model.b).equal(lrb.compose(model.b))
