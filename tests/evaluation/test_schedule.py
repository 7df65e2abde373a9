"""Every image once, in shards that do not depend on the machine."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from invariance_jax.evaluation.schedule import make_schedule

number = st.integers(1, 300)


@given(images=number, shard_size=number, devices=st.integers(1, 9), largest_pass=number)
@example(images=359, shard_size=256, devices=1, largest_pass=40)
def test_every_image_once_and_hardly_any_empty_place(images, shard_size, devices, largest_pass):
    schedule = make_schedule(
        images, shard_size=shard_size, devices=devices, largest_pass=largest_pass, cells=118
    )
    positions = [schedule.positions(shard) for shard in range(schedule.shards)]
    flat = np.concatenate(positions).ravel()
    np.testing.assert_array_equal(flat[flat < images], np.arange(images))
    assert schedule.shard_length <= shard_size
    assert schedule.device_batch * schedule.cells_at_once <= largest_pass
    assert all(
        each.shape == (schedule.batches, devices * schedule.device_batch) for each in positions
    )
    for shard, each in enumerate(positions):
        span = schedule.span(shard)
        inside = each[each < images]
        np.testing.assert_array_equal(inside, np.arange(span.start, span.stop))
    # Less than one place a device and batch, and one image a shard.
    empty = flat.size - images
    assert empty < schedule.shards * (schedule.batches * devices + 1)


def test_a_quickstart_by_hand():
    schedule = make_schedule(359, shard_size=256, devices=1, largest_pass=40, cells=118)
    # Two shards of 180, five batches of 36 each: one place of 360 is empty.
    assert (schedule.shards, schedule.shard_length) == (2, 180)
    assert (schedule.batches, schedule.device_batch, schedule.cells_at_once) == (5, 36, 1)


def test_few_images_share_a_pass_with_other_cells():
    schedule = make_schedule(10, shard_size=512, devices=1, largest_pass=64, cells=118)
    # Six cells would fit; twenty passes of them need no more than 118 / 20 cells.
    assert (schedule.device_batch, schedule.cells_at_once) == (10, 6)


def test_shards_do_not_depend_on_the_machine():
    spans = [
        [schedule.span(shard) for shard in range(schedule.shards)]
        for schedule in (
            make_schedule(1000, shard_size=300, devices=d, largest_pass=p, cells=118)
            for d, p in ((1, 7), (8, 64), (3, 1000))
        )
    ]
    assert spans[0] == spans[1] == spans[2]
