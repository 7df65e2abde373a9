"""How N images are divided into shards, batches and devices."""

import dataclasses

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Who computes what, and when.

    Attributes:
        images: How many images there are.
        shards: How many parts they are divided into; a shard is computed as a whole or not at all.
        shard_length: Images of a shard; the last may have fewer.
        batches: Batches of a shard.
        devices: Devices that share a batch.
        device_batch: Images of a batch on each device.
        cells_at_once: Cells of the grid that one forward pass takes, each with all of the
            device's images.
    """

    images: int
    shards: int
    shard_length: int
    batches: int
    devices: int
    device_batch: int
    cells_at_once: int

    def span(self, shard: int) -> slice:
        """The images of a shard.

        Args:
            shard: Its number.

        Returns:
            Positions, first to one after the last.
        """
        start = shard * self.shard_length
        return slice(start, min(start + self.shard_length, self.images))

    def positions(self, shard: int) -> Int[np.ndarray, "batches batch"]:
        """The images of each batch of a shard.

        Args:
            shard: Its number.

        Returns:
            Positions; `images` where a batch is filled up.
        """
        span = self.span(shard)
        rows = np.arange(self.batches * self.devices * self.device_batch) + span.start
        rows = np.where(rows < span.stop, rows, self.images)
        return rows.reshape(self.batches, -1)


def make_schedule(
    images: int, *, shard_size: int, devices: int, largest_pass: int, cells: int
) -> Schedule:
    """Divides the images so that hardly any place in a batch stays empty.

    Shards depend on the number of images and `shard_size` only, so that another machine can go
    on with what one has begun.

    Args:
        images: How many images there are.
        shard_size: Most images of a shard.
        devices: Devices that share a batch.
        largest_pass: Most images that one device embeds in one forward pass.
        cells: Cells of the grid that are computed.

    Returns:
        The schedule.
    """
    shards = _parts(images, shard_size)
    shard_length = _parts(images, shards)
    batches = _parts(shard_length, largest_pass * devices)
    device_batch = _parts(shard_length, batches * devices)
    # Where all images are fewer than a forward pass bears, it takes several cells of each.
    passes = _parts(cells, max(1, largest_pass // device_batch))
    return Schedule(
        images=images,
        shards=shards,
        shard_length=shard_length,
        batches=batches,
        devices=devices,
        device_batch=device_batch,
        cells_at_once=_parts(cells, passes),
    )


def _parts(whole: int, part: int) -> int:
    """How many parts of a size cover the whole; also the size of as many parts."""
    return -(-whole // part)
