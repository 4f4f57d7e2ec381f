"""Batch-norm recalibration finds the statistics that the compressed network really has, and changes nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lowrank_bench.errors import InvalidInput
from lowrank_bench.training.recalibrate import recalibrate


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(3 + 2 * torch.randn(64, 4, 6, 6, generator=generator), torch.zeros(64)) for _ in range(5)]


def test_running_statistics_become_those_of_the_data() -> None:
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(100)
    model = nn.Sequential(norm, nn.Dropout(0.5))
    assert recalibrate(model, batches()) == 1
    images = torch.cat([x for x, _ in batches()])
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, images.var((0, 2, 3)), rtol=1e-2, atol=1e-2)
    assert norm.momentum == 0.1 and not model.training


def test_every_image_counts_alike_however_the_batches_are_cut() -> None:
    images = torch.cat([x for x, _ in batches()])
    images[256:] += 5  # the last batch is unlike the others, and small
    norm = nn.BatchNorm2d(4)
    recalibrate(nn.Sequential(norm), [(part, torch.zeros(len(part))) for part in images[:260].split([256, 4])])
    torch.testing.assert_close(norm.running_mean, images[:260].mean((0, 2, 3)))
    assert norm.momentum == 0.1


def test_a_norm_that_is_called_twice_counts_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) + self.norm(input=x + 1)

    model = Twice()
    recalibrate(model, batches())
    images = torch.cat([x for x, _ in batches()])
    torch.testing.assert_close(model.norm.running_mean, images.mean((0, 2, 3)) + 0.5)


def test_a_norm_that_no_image_passes_keeps_what_it_remembers() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = TwoHeads()
    for norm in (model.used, model.idle):
        norm.running_mean.fill_(torch.nan if norm is model.used else 7)
    recalibrate(model, batches())
    images = torch.cat([x for x, _ in batches()])
    torch.testing.assert_close(model.used.running_mean, images.mean((0, 2, 3)))
    assert (model.idle.running_mean == 7).all() and (model.idle.running_var == 1).all()


def test_weights_stay_and_layers_behind_see_recalibrated_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recalibrate(model, batches())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with torch.no_grad():
        out = model(torch.cat([x for x, _ in batches()]))
    assert out.mean((0, 2, 3)).abs().max() < 0.1
    assert (out.var((0, 2, 3)) - 1).abs().max() < 0.1


def test_a_model_that_fails_on_the_images_keeps_its_momentum_and_its_mode() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()
    with pytest.raises(RuntimeError):
        recalibrate(model, [(torch.ones(2, 3, 6, 6), torch.zeros(2))])
    assert model[1].momentum == 0.1 and not model[1].training


def test_a_single_image_tells_nothing_about_maps_of_one_pixel() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    wanted = copy.deepcopy(model)
    recalibrate(wanted, batches())
    recalibrate(model, [*batches(), (torch.ones(1, 4, 6, 6), torch.zeros(1))])
    assert torch.equal(model[1].running_mean, wanted[1].running_mean)
    with pytest.raises(InvalidInput, match="at least two images"):
        recalibrate(model, [(torch.ones(1, 4, 6, 6), torch.zeros(1))])


def test_without_a_batch_norm_no_batch_is_drawn() -> None:
    def none() -> object:
        raise AssertionError("a batch was drawn")
        yield

    assert recalibrate(nn.Sequential(nn.Conv2d(4, 8, 3)), none()) == 0
