"""A network that calls its layers by keyword, ``layer(input=x)``, is compressed, judged and timed as any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, toy_batches, toy_net

import lowrank_bench as lrb
from lowrank_bench.compression.norms import following_norms
from lowrank_bench.compression.watching import evaluating
from lowrank_bench.measurement.profile import _input_shapes
from lowrank_bench.training.side_by_side import Blend, Slices


class ByKeyword(nn.Sequential):
    """The toy network, called so."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(input=x)
        return x


def by_keyword() -> ByKeyword:
    return ByKeyword(*toy_net(norm=True)).eval()


@pytest.mark.parametrize("options", [{}, {"metric": "covariance"}, {"metric": "activation"}])
def test_it_is_compressed_alike(options: dict[str, Any]) -> None:
    plain, named = (
        lrb.compress(net, "channel_svd", lrb.Budget(macs=2), options=options, input_size=SIZE, data=toy_batches(0))
        for net in (toy_net(norm=True), by_keyword())
    )
    assert plain.plan == named.plan and plain.cost == named.cost
    images = toy_batches(1)[0][0]
    torch.testing.assert_close(plain.model(images), named.model(images))


def test_its_batch_norm_is_found_and_its_layers_shapes() -> None:
    net, names = by_keyword(), ["0", "3"]
    assert following_norms(net, SIZE, names) == following_norms(toy_net(norm=True), SIZE, names) != {}
    assert _input_shapes(net, {"3": nn.Conv2d}, torch.zeros(2, *SIZE)) == {"3": (2, 12, 8, 8)}


def test_its_slices_and_blends_see_the_same() -> None:
    net, images = by_keyword(), toy_batches(0)[0][0]
    slices = Slices(by_keyword(), net, ["3"])
    with torch.no_grad():
        slices(images)
    assert float(slices.penalty().detach()) == 0
    slices.release()
    assert torch.equal(Blend(net[0], net[0])(input=images), net[0](images))


@pytest.mark.parametrize("error", [TypeError, KeyError, AttributeError, ZeroDivisionError])
def test_whatever_the_forward_pass_raises_is_named_with_its_kind(error: type[Exception]) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error("why")

    with pytest.raises(lrb.InvalidInput, match=rf"size \(4, 8, 8\), \(C, H, W\): {error.__name__}: '?why") as caught:
        lrb.compress(nn.Sequential(nn.Conv2d(4, 4, 3), Broken()), "tucker", lrb.Budget(macs=2), input_size=SIZE)
    assert isinstance(caught.value.__cause__, error)


def test_a_network_that_was_half_in_training_is_so_again() -> None:
    net = toy_net(norm=True)
    net[1].train()
    with pytest.raises(KeyError), evaluating(net):
        assert not net[1].training
        raise KeyError
    assert [module.training for module in net].count(True) == 1 and net[1].training
