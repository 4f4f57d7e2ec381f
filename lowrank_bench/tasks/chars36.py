"""chars36, the embedded task: recognise digits and letters (upper and lower case one class) in 24x24 grey images.

Glyphs of 473 free font families (``chars36_build.py``; credits in ``assets/chars36_credits.tsv``). No family of the
test split, nor a relative of it, is seen in training. Some classes are truly ambiguous: 0 and O, 1 and I and l.
"""

from __future__ import annotations

import hashlib
import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_bench.errors import DataMissing
from lowrank_bench.recipe import Recipe
from lowrank_bench.tasks.baseline import Baseline
from lowrank_bench.tasks.charnet import CharNet
from lowrank_bench.tasks.checkpoint import load_checkpoint
from lowrank_bench.tasks.task import Batch, Split, Task, evenly
from lowrank_bench.tasks.variation import SIZE, Strength, shuffled, vary

ASSETS = Path(__file__).parent / "assets"
CHARNET = Recipe(
    name="charnet",
    epochs=20,
    images_per_epoch=27_648,
    batch_size=128,
    learning_rate=1.5e-3,
    weight_decay=0.05,
    schedule="one-cycle",
)
STRENGTH = Strength()
_FIXED_SEED = {"validation": 1, "test": 2}
FIXED_SHA256 = {
    "validation": "fadc4060b45c32f8f4665d5899ebf3e7484a0eca54f61fadb9b868e27981a870",
    "test": "27a35677da03bdf15ddecd1e18e5e8be49954f67610a886a7aa7ff9b114d65d1",
}


@dataclass(frozen=True)
class Glyphs:
    """Glyphs of one split, ordered by family: images (N, 28, 28) uint8 of 0 to 15, labels (N,), family sizes."""

    images: Tensor
    labels: Tensor
    families: list[str]
    family_sizes: list[int]


class Chars36(Task):
    """Character recognition on rendered fonts.

    The images of validation and test are fixed, one per glyph, and checked by their hash.
    """

    name: ClassVar[str] = "chars36"
    version: ClassVar[int] = 1
    timing_version: ClassVar[int] = 2  # since then, maxouts of two are timed in pairs of convolutions
    classes, input_size = 36, (1, SIZE, SIZE)
    baselines: ClassVar[dict[str, Baseline]] = {"charnet": Baseline(CharNet, CHARNET, expected=90.0)}
    models: ClassVar[tuple[str, ...]] = tuple(baselines)

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over a split; see Task.batches."""
        if split == "train":
            yield from _training_batches(batch_size, seed, epoch, limit)
            return
        images, labels = fixed_images(split), glyphs(split).labels
        chosen = evenly(len(labels), limit)
        for rows in chosen.split(batch_size):
            yield _normalised(images[rows]), labels[rows]

    def group_sizes(self, split: Split) -> list[int]:
        """Images of each font family with its relatives, such as Source Sans and Source Serif, whose names begin with
        one word: what is wrong in one is often wrong in the other.
        """
        families = zip(glyphs(split).families, glyphs(split).family_sizes, strict=True)
        relatives = groupby(families, key=lambda family: family[0].split("-")[0])
        return [sum(size for _, size in some) for _, some in relatives]

    def build(self, model: str) -> nn.Module:
        """Build an untrained ``charnet``."""
        self.check_model(model)
        return CharNet()

    def load(self, model: str) -> nn.Module:
        """Load the shipped ``charnet``."""
        return load_checkpoint(self.build(model), ASSETS / f"{model}.safetensors", "reinstall lowrank-bench")


@cache
def glyphs(split: Split) -> Glyphs:
    """Read the clean glyphs of a split from the shipped asset."""
    path = ASSETS / "chars36.npz.xz"
    if not path.exists():
        raise DataMissing(f"{path} is not there: reinstall lowrank-bench")
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as asset:
        rows = asset["splits"][asset["families"]] == split
        images, labels = torch.from_numpy(asset["glyphs"][rows]), torch.from_numpy(asset["labels"][rows]).long()
        families, sizes = np.unique(asset["families"][rows], return_counts=True)
        return Glyphs(images, labels, asset["names"][families].tolist(), sizes.tolist())


@cache
def fixed_images(split: Split) -> Tensor:
    """Make the images of validation or test, (N, 24, 24) uint8. Raises DataMissing where they are not the published."""
    images = vary(glyphs(split).images, np.random.PCG64(_FIXED_SEED[split]), STRENGTH)
    found = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    if found != FIXED_SHA256[split]:
        raise DataMissing(
            f"the {split} images of chars36 have sha256 {found}, not {FIXED_SHA256[split]}: reinstall lowrank-bench"
        )
    return images


def _training_batches(batch_size: int, seed: int, epoch: int, limit: int | None) -> Iterator[Batch]:
    source = glyphs("train")
    words = np.random.PCG64([seed, epoch])
    chosen = evenly(len(source.labels), limit)
    order = chosen[shuffled(words, len(chosen))]
    for rows in order.split(batch_size):
        yield _normalised(vary(source.images[rows], words, STRENGTH)), source.labels[rows]


def _normalised(images: Tensor) -> Tensor:
    """Give each image mean 0 and variance 1, like Jaderberg et al. 2014; (N, 24, 24) to (N, 1, 24, 24) float32."""
    grey = images[:, None].float()
    deviation, mean = torch.std_mean(grey, dim=(2, 3), keepdim=True, correction=0)
    return (grey - mean) / deviation.clamp(min=1)
