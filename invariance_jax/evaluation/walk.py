"""In which order images are looked at, so that each is read once though the baseline needs two.

The baseline of image i is the distance of its features to those of another image's transform,
pi(i). Along a cycle of the permutation, i, pi(i), pi(pi(i)), ..., each image comes right after the
one whose baseline it serves: what was kept of that one is still at hand. So one look at each image
is enough, and nothing grows with their number but the results.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """The rows of one shard, in the order in which they are read.

    Attributes:
        positions: Position of each row's image in the source.
        measured: False for the rows that are there for the row after them only: the image before
            the shard's first, and the last image of a cycle before its first; and for all images
            of a group but its last.
        numbers: Where each row's result goes: the image's position, or the number of its group.
    """

    positions: Int[np.ndarray, " row"]
    measured: Bool[np.ndarray, " row"]
    numbers: Int[np.ndarray, " row"]


def pairing(images: int, seed: int) -> Int[np.ndarray, " image"]:
    """Draws pi, which pairs every image with another one (paper, section 3).

    Args:
        images: How many there are, at least 2.
        seed: Of the draw.

    Returns:
        A random permutation; where it left images in their places, these change places in a circle
        (a single one with the image before it), so that none is its own partner.
    """
    permutation = np.random.default_rng(seed).permutation(images)
    fixed = np.flatnonzero(permutation == np.arange(images))
    if len(fixed) == 1:
        fixed = np.array([fixed[0] - 1, fixed[0]]) % images
    permutation[fixed] = permutation[np.roll(fixed, 1)]
    return permutation


def walks(
    images: int, shard_size: int, permutation: Int[np.ndarray, " image"] | None
) -> list[Walk]:
    """Divides the images into shards and says how each is walked.

    Shards depend on the number of images, their size and the permutation only, so that another
    machine can go on with what one has begun.

    Args:
        images: How many images there are.
        shard_size: Most images of a shard.
        permutation: pi, without fixed points; None if every image is measured by itself.

    Returns:
        One for each shard; every image is measured in exactly one.
    """
    count = -(-images // shard_size)
    length = -(-images // count)
    if permutation is None:
        order, before = np.arange(images), None
    else:
        order, before = _along_cycles(permutation), np.argsort(permutation)
    found = []
    for start in range(0, images, length):
        part = order[start : start + length]
        measured = np.ones(len(part), bool)
        if before is not None:
            comes_after = np.concatenate([[False], part[:-1] == before[part[1:]]])
            breaks = np.flatnonzero(~comes_after)
            measured = np.insert(measured, breaks, False)
            part = np.insert(part, breaks, before[part[breaks]])
        found.append(Walk(part, measured, part))
    return found


def walks_of_groups(order: Int[np.ndarray, " image"], together: int, shard_size: int) -> list[Walk]:
    """Divides groups of images into shards, as `walks` does images.

    Args:
        order: Positions in the source, group after group.
        together: Images of a group.
        shard_size: Most groups of a shard.

    Returns:
        One for each shard; no group is divided.
    """
    order = order.reshape(-1, together)
    last = np.arange(together) == together - 1
    return [
        Walk(
            order[each.positions].reshape(-1),
            np.tile(last, len(each.positions)),
            np.repeat(each.positions, together),
        )
        for each in walks(len(order), shard_size, None)
    ]


def _along_cycles(permutation: Int[np.ndarray, " image"]) -> Int[np.ndarray, " image"]:
    """All images, each cycle of the permutation in one piece."""
    seen = np.zeros(len(permutation), bool)
    order = []
    for start in range(len(permutation)):
        image = start
        while not seen[image]:
            seen[image] = True
            order.append(image)
            image = permutation[image]
    return np.array(order)


def batch_size(shards: list[Walk], *, devices: int, largest_pass: int, together: int = 1) -> int:
    """Says how large batches are to be, so that hardly any place in them stays empty.

    Args:
        shards: From `walks` or `walks_of_groups`.
        devices: Devices that share a batch.
        largest_pass: Most images that one device embeds in one forward pass; a whole group always.
        together: Images of a group, which one device sees.

    Returns:
        Images of a batch.
    """
    longest = max(len(shard.positions) for shard in shards) // together
    count = -(-longest // (max(1, largest_pass // together) * devices))
    return together * devices * -(-longest // (count * devices))


def batches(shards: list[Walk], size: int) -> list[list[Walk]]:
    """Divides the rows of shards into batches of one shape.

    Args:
        shards: From `walks` or `walks_of_groups`.
        size: Images of a batch, from `batch_size`.

    Returns:
        The batches of each shard. The last batch of a shard repeats its last row, not measured,
        until it is full.
    """
    found = []
    for shard in shards:
        rows = np.arange(-(-len(shard.positions) // size) * size)
        there = np.minimum(rows, len(shard.positions) - 1)
        measured = shard.measured[there] & (rows == there)
        parts = (
            each.reshape(-1, size)
            for each in (shard.positions[there], measured, shard.numbers[there])
        )
        found.append([Walk(*each) for each in zip(*parts, strict=True)])
    return found
