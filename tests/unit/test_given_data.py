"""A user's data are looked at when they are read: what cannot be used is named, with what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from toys import SIZE, toy_batches, toy_net

import lowrank_bench as lrb

IMAGES, LABELS = toy_batches(0)[0]
RUN = {"ranks": 2, "options": {"metric": "covariance"}, "input_size": SIZE}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((IMAGES, LABELS), "batch 0 of data is a Tensor: a pair"),
        ([IMAGES], "batch 0 of data is a Tensor: a pair"),
        ([(IMAGES, LABELS), (IMAGES,)], "batch 1 of data is a tuple of 1: a pair"),
        ([(IMAGES, LABELS.tolist())], "batch 0 of data is a tuple of 2: a pair"),
        ([(IMAGES, LABELS[1:])], f"batch 0 of data holds {len(IMAGES)} images and {len(LABELS) - 1} labels"),
        ([((255 * IMAGES).to(torch.uint8), LABELS)], r"images in torch.uint8, .* give images.to\(torch.float32\)"),
        ([(IMAGES.double(), LABELS)], "images in torch.float64, and the model computes in torch.float32"),
        ([(IMAGES[..., 1:], LABELS)], "resize them"),
    ],
)
def test_what_is_no_batch_for_the_model_is_named(data: Any, words: str) -> None:
    with pytest.raises(lrb.InvalidData, match=words):
        lrb.compress(toy_net(), "tucker", data=data, **RUN)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS + 1000, "labels in torch.int64 from 100.* to 100.*, and the model has"),
        (LABELS - 1000, "labels in torch.int64 from -"),
        (LABELS.float(), "labels in torch.float32 from"),
        (torch.zeros(len(LABELS), 3, dtype=torch.int64), "labels in torch.int64 of shape"),
    ],
)
@pytest.mark.parametrize(
    ("method", "options", "recipe"),
    [
        ("tucker", {"metric": "mahalanobis"}, None),
        ("lowrank_training", {}, "short"),
        ("narrow", {"scratch_recipe": "short"}, None),
    ],
)
def test_labels_that_are_no_classes_of_the_model_are_named(
    method: str, options: dict[str, object], recipe: str | None, labels: torch.Tensor, words: str
) -> None:
    with pytest.raises(lrb.InvalidData, match=words):
        lrb.compress(
            toy_net(), method, lrb.Budget(macs=2), options=options, recipe=recipe, input_size=SIZE,
            data=[(IMAGES, labels)],
        )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_whole_numbers_of_any_kind_are_labels(dtype: torch.dtype) -> None:
    made = lrb.compress(
        toy_net(), "tucker", ranks=2, recipe="short", input_size=SIZE, data=[(IMAGES, LABELS.to(dtype))]
    )
    assert made.history is not None


def test_labels_that_nothing_reads_may_be_anything() -> None:
    lrb.compress(toy_net(), "tucker", data=[(IMAGES, torch.rand(len(IMAGES)))], **RUN)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (5, "data is a int, which holds no batches: give a list"),
        (iter([(IMAGES, LABELS)]), "data is a list_iterator, which can be read once only: give a list"),
        (lambda: [(IMAGES, LABELS)], "does not take it: give a list"),
    ],
)
def test_what_cannot_be_read_again_and_again_is_named(data: Any, words: str) -> None:
    with pytest.raises(lrb.InvalidInput, match=words):
        lrb.compress(toy_net(), "tucker", data=data, **RUN)


class Named(nn.Module):
    """A network that gives its logits by a name."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = toy_net()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.trunk(x)}


@pytest.mark.parametrize("options", [{"metric": "mahalanobis"}, {"allocation": "sensitivity"}])
def test_a_network_that_gives_no_tensor_is_named_where_logits_are_looked_at(options: dict[str, str]) -> None:
    with pytest.raises(lrb.InvalidInput, match="the model gives a dict, and one tensor of logits is wanted"):
        lrb.compress(
            Named(), "tucker", lrb.Budget(macs=2), options=options, input_size=SIZE, data=[(IMAGES, LABELS)] * 2
        )


def test_a_class_may_be_the_function_that_opens_an_epoch() -> None:
    class Opened:
        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            return iter([(IMAGES, LABELS)])

    made = lrb.compress(toy_net(), "tucker", data=Opened, **RUN)
    listed = lrb.compress(toy_net(), "tucker", data=[(IMAGES, LABELS)], **RUN)
    torch.testing.assert_close(made.model.state_dict(), listed.model.state_dict())
