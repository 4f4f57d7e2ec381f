import hashlib

import numpy as np
import pytest
import torch

from lowrank_bench.errors import DataMissing, UnknownName
from lowrank_bench.tasks import chars36
from lowrank_bench.tasks.catalog import TASKS, get_task
from lowrank_bench.tasks.chars36 import ASSETS, FIXED_SHA256, STRENGTH, Chars36, fixed_images, glyphs
from lowrank_bench.tasks.variation import Strength, uniform, vary

SPLITS = ("train", "validation", "test")
STILL = Strength(size=(24, 24), aspect=0, rotation=0, shear=0, shift=0, blur=0, contrast=(255, 255), clutter=0, noise=0)


def test_families_of_the_splits_share_no_first_word():
    words = {split: {name.split("-")[0] for name in glyphs(split).families} for split in SPLITS}
    assert not words["train"] & words["test"]
    assert not words["train"] & words["validation"]
    assert not words["validation"] & words["test"]


def test_splits_are_as_large_as_published():
    assert len(glyphs("train").labels) > 25_000
    assert 3_000 <= len(glyphs("validation").labels) <= 4_000
    assert 6_000 <= len(glyphs("test").labels) <= 9_000


@pytest.mark.parametrize("split", SPLITS)
def test_group_sizes_sum_to_the_split_and_every_class_is_there(split):
    assert sum(Chars36().group_sizes(split)) == len(glyphs(split).labels)
    words = [family.split("-")[0] for family in glyphs(split).families]
    assert len(Chars36().group_sizes(split)) == len(set(words)) < len(words)  # no relatives lie apart
    assert glyphs(split).labels.unique().tolist() == list(range(36))


def test_every_group_holds_each_class_at_least_once():
    for labels in glyphs("test").labels.split(Chars36().group_sizes("test")):
        assert len(labels.unique()) == 36


def test_fixed_images_do_not_depend_on_the_number_of_threads():
    threads, digests = torch.get_num_threads(), set()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            fixed_images.cache_clear()
            digests.add(hashlib.sha256(fixed_images("validation").numpy().tobytes()).hexdigest())
    finally:
        torch.set_num_threads(threads)
    assert digests == {FIXED_SHA256["validation"]}


def test_a_changed_image_is_noticed(monkeypatch):
    monkeypatch.setattr(chars36, "STRENGTH", Strength(noise=STRENGTH.noise + 1))
    fixed_images.cache_clear()
    with pytest.raises(DataMissing, match="sha256"):
        fixed_images("validation")


def test_training_images_depend_on_seed_and_epoch_and_on_nothing_else():
    def first(**where):
        return next(Chars36().batches("train", 64, **where))

    (images, labels), (again, again_labels) = first(seed=1, epoch=2), first(seed=1, epoch=2)
    assert torch.equal(images, again)
    assert torch.equal(labels, again_labels)
    assert not torch.equal(images, first(seed=1, epoch=3)[0])
    assert not torch.equal(images, first(seed=2, epoch=2)[0])


def test_seed_and_epoch_do_not_touch_a_fixed_split():
    images, labels = next(Chars36().batches("validation", 64))
    again, again_labels = next(Chars36().batches("validation", 64, seed=3, epoch=4))
    assert torch.equal(images, again)
    assert torch.equal(labels, again_labels)


def test_images_are_normalised_float32_of_the_declared_size():
    images, labels = next(Chars36().batches("test", 32))
    assert images.shape == (32, *Chars36.input_size)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(images.var(dim=(1, 2, 3), correction=0), torch.ones(32), rtol=1e-4, atol=0)


def test_an_epoch_shows_every_training_glyph_once():
    labels = torch.cat([labels for _, labels in Chars36().batches("train", 4096)])
    assert torch.equal(labels.bincount(), glyphs("train").labels.bincount())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_limit_draws_so_many_images_evenly_over_the_split(split):
    batches = list(Chars36().batches(split, 64, limit=200))
    assert [len(labels) for _, labels in batches] == [64, 64, 64, 8]
    expected = glyphs(split).labels[[i * len(glyphs(split).labels) // 200 for i in range(200)]]
    assert torch.equal(torch.cat([labels for _, labels in batches]).sort().values, expected.sort().values)


def test_limit_beyond_the_split_gives_the_whole_split():
    shown = sum(len(labels) for _, labels in Chars36().batches("validation", 512, limit=10**6))
    assert shown == len(glyphs("validation").labels)


def test_variation_of_no_strength_keeps_a_glyph_of_the_images_own_size():
    glyph = torch.randint(16, (50, 24, 24), dtype=torch.uint8)
    images = vary(glyph, np.random.PCG64(0), STILL).int()
    straight = glyph.int() * 17
    as_is, reversed_ = ((images - wanted).abs().amax((1, 2)) for wanted in (straight, 255 - straight))
    assert torch.minimum(as_is, reversed_).max() <= 1
    assert len(set(images[glyph == 0].tolist())) == 2


def test_rotation_alone_keeps_the_centre_and_the_ink():
    disc = torch.zeros(20, 25, 25)
    y, x = torch.meshgrid(torch.arange(25), torch.arange(25), indexing="ij")
    disc[:, (x - 12) ** 2 + (y - 12) ** 2 <= 64] = 15
    still = Strength(**{**vars(STILL), "size": (25, 25), "rotation": 0.4})
    images = vary(disc.byte(), np.random.PCG64(1), still).float()
    ink = (images - images[:, :1, :1]).abs().sum((1, 2))
    assert (ink / ink.mean() - 1).abs().max() < 0.03


def test_uniform_draws_are_uniform():
    draws = uniform(np.random.PCG64(0), 100_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(draws.var() - 1 / 12) < 0.001


def test_assets_are_small_and_every_family_is_credited_under_a_free_licence():
    assert (ASSETS / "chars36.npz.xz").stat().st_size <= 8_000_000
    rows = [line.split("\t") for line in (ASSETS / "chars36_credits.tsv").read_text().splitlines()[1:]]
    assert {row[0] for row in rows} == {name for split in SPLITS for name in glyphs(split).families}
    assert {row[2] for row in rows} <= {"Apache-2.0", "CC0-1.0", "MIT", "OFL-1.1", "UFL-1.0", "Unlicense"}


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'chars36'"):
        get_task("chars63")
    with pytest.raises(UnknownName, match="did you mean 'charnet'"):
        Chars36().build("charnte")
    assert TASKS["chars36"] is Chars36
