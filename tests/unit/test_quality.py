from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowrank_bench.errors import InvalidInput, InvalidRecord
from lowrank_bench.measurement.quality import (
    agreement,
    coarsest,
    pack_hits,
    paired_drop,
    paired_drop_ratio,
    unpack_hits,
)
from lowrank_bench.reporting.boards.tables import FEW


@pytest.fixture
def rng() -> np.random.Generator:
    """The same draws for each test, whichever ran before it."""
    return np.random.default_rng(0)


def test_drop_is_the_difference_of_top1_in_points(rng):
    control, compressed = rng.random(1000) < 0.9, rng.random(1000) < 0.8
    expected = 100 * control.mean() - 100 * compressed.mean()
    assert paired_drop(control, compressed).drop == pytest.approx(expected)
    assert paired_drop(compressed, control).drop == pytest.approx(-expected)
    assert paired_drop(control, compressed, [250] * 4).drop == pytest.approx(expected)


def test_images_on_their_own_have_the_normal_interval_of_paired_differences(rng):
    control, compressed = rng.random(4000) < 0.9, rng.random(4000) < 0.85
    lost = control.astype(float) - compressed
    drop, low, high = paired_drop(control, compressed)
    half = 100 * 1.96 * lost.std() / np.sqrt(len(lost))
    assert (low, high) == pytest.approx((drop - half, drop + half), abs=0.06 * half)


def test_models_that_agree_on_every_image_do_not_differ_at_all(rng):
    hits = rng.random(500) < 0.9
    assert paired_drop(hits, hits) == (0, 0, 0)


def test_pairing_keeps_hard_images_out_of_the_interval(rng):
    control = rng.random(2000) < 0.7
    compressed = control.copy()
    compressed[np.flatnonzero(control)[:20]] = False
    drop, low, high = paired_drop(control, compressed)
    assert drop == 1
    assert 0.5 < low < high < 1.6  # an unpaired interval would reach 2.8 points to each side


@pytest.mark.parametrize(("images", "least", "most"), [(FEW, 0.93, 0.98), (FEW // 3, 0.5, 0.88)])
def test_of_fewer_images_than_boards_warn_of_intervals_hold_the_truth_too_seldom(rng, images, least, most):
    held = 0
    for _ in range(300):  # 5 % of the images are lost and 3 % gained: a loss of 2 points
        drawn = rng.random(images)
        _, low, high = paired_drop(drawn >= 0.03, (drawn < 0.03) | (drawn >= 0.08))
        held += low <= 2 <= high
    assert least < held / 300 < most


def test_groups_that_fail_together_widen_the_interval():
    control = np.ones(1000, dtype=bool)
    compressed = np.repeat(np.arange(50) % 5 > 0, 20)
    _, low, high = paired_drop(control, compressed)
    _, group_low, group_high = paired_drop(control, compressed, [20] * 50)
    assert (group_high - group_low) / (high - low) == pytest.approx(np.sqrt(20), rel=0.1)


def test_groups_of_one_image_are_images_on_their_own(rng):
    control, compressed = rng.random(300) < 0.9, rng.random(300) < 0.8
    assert paired_drop(control, compressed, [1] * 300) == paired_drop(control, compressed)


def test_stated_interval_of_unequal_groups_holds_the_true_drop():
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(5, 30, size=100)
        difficulty = np.repeat(rng.beta(2, 18, size=100), sizes)  # the chance to lose an image: 10 % on average
        control = np.ones(sizes.sum(), dtype=bool)
        drop = paired_drop(control, rng.random(sizes.sum()) >= difficulty, sizes.tolist(), seed=seed)
        held += drop.low <= 10 <= drop.high
    assert 90 <= held <= 99


def test_the_same_seed_gives_the_same_interval():
    images = np.arange(100_000)  # so many that no two seeds agree on both ends
    control, compressed = images % 11 > 0, images % 7 > 0
    assert paired_drop(control, compressed, seed=3) == paired_drop(control, compressed, seed=3)
    assert paired_drop(control, compressed, seed=3) != paired_drop(control, compressed, seed=4)


def test_the_interval_is_the_same_with_every_numpy():
    images = np.arange(4001)  # numpy 2.1 and 2.5 draw differently from one seed of a Generator
    lost = tuple(round(end * 4001 / 100, 6) for end in paired_drop(images % 11 > 0, images % 7 > 0)[1:])
    assert lost == (151, 264)


def losing(control, share, rng):
    """The control's hits but for a share of them."""
    return control & (rng.random(control.size) >= share)


def test_the_ratio_of_two_losses_is_that_of_their_drops_and_its_interval_holds_the_truth():
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        control = rng.random(2000) < 0.9
        own, other = losing(control, 0.05, rng), losing(control, 0.1, rng)
        found = paired_drop_ratio(control, own, other, [20] * 100)
        assert found.ratio == pytest.approx(paired_drop(control, own).drop / paired_drop(control, other).drop)
        held += found.low <= 0.5 <= found.high
    assert 90 <= held <= 99


def test_a_ratio_of_paired_losses_is_narrower_than_the_losses_themselves(rng):
    control, groups = np.ones(2000, dtype=bool), [20] * 100
    other = np.repeat(rng.random(100) < 0.9, 20)
    own = other | (np.arange(2000) % 2 == 0)  # half of what the other loses, in the same groups
    found = paired_drop_ratio(control, own, other, groups)
    assert found == (0.5, 0.5, 0.5)
    _, low, high = paired_drop(control, own, groups)
    assert high > 1.5 * low


def test_nothing_is_a_multiple_of_no_loss_and_a_loss_that_may_be_none_bounds_nothing():
    control = np.ones(100, dtype=bool)
    own, other = control.copy(), control.copy()
    own[:10] = False
    assert paired_drop_ratio(control, own, other) is None
    other[50] = False
    assert paired_drop_ratio(control, own, other).high == np.inf


def test_of_ways_to_group_images_the_coarsest_counts_into_which_all_others_fit():
    assert coarsest([[2, 3, 1], [5, 1], [2, 3, 1]]) == [5, 1]
    assert coarsest([[5, 1], [1, 1, 3, 1]]) == [5, 1]
    assert coarsest([None, None]) is None
    for others in ([[5, 1], [4, 2]], [[5, 1], [3, 3, 1]], [[5, 1], None], [[6], [5, 2]]):
        with pytest.raises(InvalidInput, match="not the same ones"):
            coarsest(others)


@pytest.mark.parametrize(
    ("control", "compressed", "groups", "confidence"),
    [
        ([True], [True, False], None, 0.95),
        ([], [], None, 0.95),
        ([1, 0], [1, 1], None, 0.95),
        ([True, False], [True, True], [1], 0.95),
        ([True, False], [True, True], [0, 2], 0.95),
        ([True, False], [True, True], [], 0.95),
        ([True, False], [True, True], None, 1.0),
    ],
)
def test_hits_or_groups_that_do_not_match_are_refused(control, compressed, groups, confidence):
    with pytest.raises(InvalidInput):
        paired_drop(control, compressed, groups, confidence)


@given(st.lists(st.booleans(), max_size=100))
def test_packed_hits_come_back_bit_for_bit(hits):
    assert unpack_hits(pack_hits(np.array(hits, dtype=bool)), len(hits)).tolist() == hits


def test_packed_hits_are_small(rng):
    assert len(pack_hits(rng.random(10_000) < 0.95)) < 10_000 / 8


@pytest.mark.parametrize(("text", "n"), [("", 3), ("not base64!", 3), ("AAAA", 3), (pack_hits(np.ones(9, bool)), 8)])
def test_damaged_hits_are_a_bad_record(text, n):
    with pytest.raises(InvalidRecord, match="run the trial again"):
        unpack_hits(text, n)


def test_agreement_is_the_percentage_of_equal_predictions():
    assert agreement([1, 2, 3, 4], [1, 2, 3, 5]) == 75
    with pytest.raises(InvalidInput, match="shapes"):
        agreement([1, 2], [1, 2, 3])
    with pytest.raises(InvalidInput):
        agreement([], [])
