"""Every image once, right after the one whose baseline it serves, in shards of any machine."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from invariance_jax.evaluation import walk

number = st.integers(1, 300)
several = st.integers(2, 300)
seeds = st.integers(0, 2**31 - 1)


@given(images=several, seed=seeds)
@example(images=2, seed=0)  # numpy leaves both in their places
@example(images=6, seed=1)  # and here one of them
def test_pairs_are_numpys_permutation_but_for_images_left_in_place(images, seed):
    found = walk.pairing(images, seed)
    drawn = np.random.default_rng(seed).permutation(images)
    everyone = np.arange(images)
    np.testing.assert_array_equal(np.sort(found), everyone)
    assert not np.any(found == everyone)
    fixed = np.flatnonzero(drawn == everyone)
    # A single image that is left in place needs another one to change places with.
    moved = {fixed[0], (fixed[0] - 1) % images} if len(fixed) == 1 else set(fixed)
    assert set(np.flatnonzero(found != drawn)) == moved


def test_pairs_by_hand():
    def drawn(images, seed):
        return np.random.default_rng(seed).permutation(images).tolist()

    # Image 2 is left in its place and changes places with image 1.
    assert drawn(6, seed=1) == [4, 0, 2, 1, 5, 3]
    assert walk.pairing(6, seed=1).tolist() == [4, 2, 0, 1, 5, 3]
    # Images 2, 4 and 5 are.
    assert drawn(8, seed=3) == [6, 7, 2, 1, 4, 5, 3, 0]
    assert walk.pairing(8, seed=3).tolist() == [6, 7, 5, 1, 2, 4, 3, 0]


def cycles_of(permutation):
    left, count = set(range(len(permutation))), 0
    while left:
        image = left.pop()
        count += 1
        while (image := int(permutation[image])) in left:
            left.remove(image)
    return count


@given(images=several, shard_size=number, seed=seeds)
def test_each_image_comes_once_after_the_one_whose_baseline_it_serves(images, shard_size, seed):
    permutation = walk.pairing(images, seed)
    shards = walk.walks(images, shard_size, permutation)
    positions, leads = [], 0
    for shard in shards:
        assert 0 < shard.measured.sum() <= shard_size
        assert shard.measured.shape == shard.positions.shape
        # Nothing is carried from one shard to the next.
        assert not shard.measured[0]
        rows = np.flatnonzero(shard.measured)
        np.testing.assert_array_equal(
            permutation[shard.positions[rows - 1]], shard.positions[rows], strict=True
        )
        positions.append(shard.positions[rows])
        leads += len(shard.positions) - len(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(positions)), np.arange(images))
    assert len(shards) <= -(-images // shard_size)
    # One row a shard, and one for each cycle that begins within a shard.
    assert leads <= len(shards) + cycles_of(permutation) - 1


@given(images=number, shard_size=number)
def test_without_pairs_images_come_in_their_order(images, shard_size):
    shards = walk.walks(images, shard_size, None)
    np.testing.assert_array_equal(
        np.concatenate([each.positions for each in shards]), np.arange(images)
    )
    assert all(each.measured.all() and len(each.positions) <= shard_size for each in shards)
    assert len(shards) <= -(-images // shard_size)


@given(
    images=number,
    shard_size=number,
    devices=st.integers(1, 9),
    largest_pass=number,
    seed=st.none() | seeds,
)
@example(images=359, shard_size=256, devices=1, largest_pass=40, seed=None)
def test_batches_hold_the_rows_and_hardly_an_empty_place(
    images, shard_size, devices, largest_pass, seed
):
    permutation = None if seed is None or images < 2 else walk.pairing(images, seed)
    shards = walk.walks(images, shard_size, permutation)
    size = walk.batch_size(shards, devices=devices, largest_pass=largest_pass)
    batches = walk.batches(shards, size)
    assert size % devices == 0 and size <= devices * largest_pass
    assert len(batches) == len(shards)
    for shard, parts in zip(shards, batches, strict=True):
        assert {part.positions.shape for part in parts} == {(size,)}
        positions, measured = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("positions", "measured")
        )
        rows = len(shard.positions)
        np.testing.assert_array_equal(positions[:rows], shard.positions)
        np.testing.assert_array_equal(measured[:rows], shard.measured)
        # What fills a batch up is an image that was just read, and it is not measured.
        assert np.all(positions[rows:] == shard.positions[-1]) and not measured[rows:].any()
        assert len(positions) - rows < size
    # Less than one place a device and batch, and one image a shard; with pairs, what the shard
    # with most cycles has to read twice.
    most_batches = max(map(len, batches))
    most_leads = max(len(each.positions) - each.measured.sum() for each in shards)
    empty = sum(map(len, batches)) * size - images
    assert empty < len(shards) * (most_batches * devices + 1 + most_leads)


def test_a_quickstart_by_hand():
    shards = walk.walks(359, 256, None)
    size = walk.batch_size(shards, devices=1, largest_pass=40)
    batches = walk.batches(shards, size)
    # Two shards of 180, five batches of 36 each: one place of 360 is empty.
    assert size == 36 and [len(each) for each in batches] == [5, 5]
    assert [len(each.positions) for each in shards] == [180, 179]


def test_a_cycle_by_hand():
    # 0 -> 2 -> 0, and 1 -> 4 -> 3 -> 1.
    permutation = np.array([2, 4, 0, 1, 3])
    whole, parts = (walk.walks(5, size, permutation) for size in (5, 3))
    # Before a cycle's first image comes its last one.
    assert whole[0].positions.tolist() == [2, 0, 2, 3, 1, 4, 3]
    assert whole[0].measured.tolist() == [False, True, True, False, True, True, True]
    # The cycle is cut: the next shard begins with the image before its first.
    assert [each.positions.tolist() for each in parts] == [[2, 0, 2, 3, 1], [1, 4, 3]]
    assert [each.measured.tolist() for each in parts] == [
        [False, True, True, False, True],
        [False, True, True],
    ]


@given(images=several, shard_size=number, seed=seeds)
def test_shards_do_not_depend_on_the_machine(images, shard_size, seed):
    shards = walk.walks(images, shard_size, walk.pairing(images, seed))

    def measured(devices, largest_pass):
        size = walk.batch_size(shards, devices=devices, largest_pass=largest_pass)
        batches = walk.batches(shards, size)
        return [
            np.concatenate([part.positions[part.measured] for part in parts]).tolist()
            for parts in batches
        ]

    expected = [each.positions[each.measured].tolist() for each in shards]
    assert measured(1, 7) == measured(8, 64) == measured(3, 1000) == expected


@given(
    groups=st.integers(1, 20),
    together=st.integers(2, 4),
    shard_size=st.integers(1, 20),
    devices=st.sampled_from([1, 3]),
    largest_pass=st.integers(1, 20),
    seed=seeds,
)
def test_groups_stay_together_on_one_device(
    groups, together, shard_size, devices, largest_pass, seed
):
    # Images may be in several groups, or in one twice.
    order = np.random.default_rng(seed).integers(0, 50, groups * together)
    shards = walk.walks_of_groups(order, together, shard_size)
    size = walk.batch_size(shards, devices=devices, largest_pass=largest_pass, together=together)
    assert size <= devices * max(largest_pass, together)
    found = []
    for shard, parts in zip(shards, walk.batches(shards, size), strict=True):
        assert 0 < shard.measured.sum() <= shard_size
        for part in parts:
            for here in np.split(np.arange(size), devices):
                positions = part.positions[here].reshape(-1, together)
                measured = part.measured[here].reshape(-1, together)
                assert not measured[:, :-1].any()
                kept = measured[:, -1]
                numbers = part.numbers[here].reshape(-1, together)[kept, -1]
                found += zip(numbers.tolist(), positions[kept].tolist(), strict=True)
    assert found == list(enumerate(order.reshape(-1, together).tolist()))
