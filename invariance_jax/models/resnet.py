"""ResNets in torchvision's v1.5 layout, timm's variants, and the original's modified ResNet-18."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from invariance_jax.errors import UserError
from invariance_jax.models.convolution import blur_pool, convolve, max_pool
from invariance_jax.models.layers import (
    BatchNorm,
    check_images,
    kaiming_normal_fan_out,
    torch_uniform,
    torch_uniform_bias,
)

# [batch, height, width, channels]; a block changes all but the first.
FeatureMap = Float[Array, "batch _ _ _"]


def conv(
    width: int, kernel: int, stride: int, dtype: DTypeLike, name: str, *, groups: int = 1
) -> nn.Conv:
    """Makes a convolution without bias, padded on all sides alike, as torch does.

    Args:
        width: Output channels.
        kernel: Side of the kernel; padded by half of it.
        stride: Step in both directions.
        dtype: What it computes in.
        name: Of its parameters.
        groups: Parts of the channels that do not see each other.

    Returns:
        The layer. Flax's "SAME" would pad strided convolutions on one side only.
    """
    return nn.Conv(
        width,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=False,
        feature_group_count=groups,
        dtype=dtype,
        kernel_init=kaiming_normal_fan_out,
        conv_general_dilated=convolve,
        name=name,
    )


class Block(nn.Module):
    """One residual block: what is learned, added to a shortcut, then ReLU.

    Attributes:
        width: A quarter of what a bottleneck gives out, all that a basic block does.
        stride: Of the block; on the 3x3 convolution (the first of two in a basic block).
        bottleneck: 1x1, 3x3, 1x1 convolutions instead of 3x3, 3x3.
        pool: What takes the stride after the ReLU of that convolution, instead of it: "max" or
            "blur", or "" for the convolution; the shortcut keeps its own stride.
        inner_width: Channels inside a bottleneck.
        groups: Parts of these that the 3x3 convolution keeps apart.
        avg_down: The shortcut's stride is taken by an average over 2x2 pixels.
        ghost_batch_size: How many images share BatchNorm statistics; 0 for the whole batch.
        dtype: What it computes in.
    """

    width: int
    stride: int
    bottleneck: bool
    pool: str
    inner_width: int
    groups: int
    avg_down: bool
    ghost_batch_size: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> FeatureMap:
        """Applies the block.

        Args:
            x: Feature map.
            train: Whether BatchNorm uses and moves the statistics of the batch.

        Returns:
            Feature map of `ceil(side / stride)`.
        """
        normed = functools.partial(self._normed_conv, train=train)
        stride = 1 if self.pool else self.stride
        if self.bottleneck:
            out_width = 4 * self.width
            y = nn.relu(normed(x, self.inner_width, 1, 1, "1"))
            y = nn.relu(normed(y, self.inner_width, 3, stride, "2", groups=self.groups))
            y = normed(self._pooled(y), out_width, 1, 1, "3")
        else:
            out_width = self.width
            y = nn.relu(normed(x, self.width, 3, stride, "1"))
            y = normed(self._pooled(y), self.width, 3, 1, "2")
        if self.stride != 1 or x.shape[-1] != out_width:
            if self.avg_down and self.stride != 1:
                x = _average_of_pairs(x)
            x = normed(x, out_width, 1, 1 if self.avg_down else self.stride, "_shortcut")
        return nn.relu(x + y)

    def _pooled(self, y: FeatureMap) -> FeatureMap:
        if self.pool == "max":
            return max_pool(y, self.stride, self.stride)
        return blur_pool(y) if self.pool == "blur" else y

    def _normed_conv(
        self,
        x: FeatureMap,
        width: int,
        kernel: int,
        stride: int,
        suffix: str,
        *,
        train: bool,
        groups: int = 1,
    ) -> FeatureMap:
        x = conv(width, kernel, stride, self.dtype, f"conv{suffix}", groups=groups)(x)
        return BatchNorm(self.ghost_batch_size, self.dtype, name=f"bn{suffix}")(x, train=train)


def _average_of_pairs(x: FeatureMap) -> FeatureMap:
    """Halves a feature map; at an odd side's end the mean is of what is there."""
    sides = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
    return nn.avg_pool(x, (2, 2), (2, 2), sides, count_include_pad=False)


class ResNet(nn.Module):
    """Stages of residual blocks, each stage at half the resolution of the one before.

    He et al., "Deep residual learning for image recognition" (arXiv 1512.03385). Shortcuts that
    change shape are 1x1 convolutions everywhere, in the CIFAR family too. Variants have timm's
    names: wide (arXiv 1605.07146), ResNeXt (arXiv 1611.05431), D (arXiv 1812.01187), anti-aliased
    (arXiv 1904.11486).

    Attributes:
        num_classes: Length of the logits; 0 for a network without a head.
        dtype: What it computes in; parameters and statistics are float32 always.
        ghost_batch_size: How many images share BatchNorm statistics; 0 for the whole batch.
        stage_sizes: Blocks of each stage.
        stage_widths: Channels inside the blocks of each stage.
        bottleneck: Kind of block.
        stem: "imagenet" (7x7 with stride 2, 3x3 max-pool with stride 2), "deep" (three 3x3, the
            first with stride 2, and the max-pool) or "cifar" (3x3).
        stem_stride: Stride of the cifar stem.
        base_width: Channels of each group inside a bottleneck, for 64 of the stage's.
        cardinality: Groups of the 3x3 convolutions of bottlenecks.
        avg_down: See `Block`.
        blur_pool: Every stride but the first convolution's and the shortcuts' is taken by a blur:
            see `blur_pool` in `convolution.py`.
        stage2_pool: Stage 2 halves by max-pool (see `Block.pool`).
        stage3_pool: The same for stage 3.
        stage4_pool: The same for stage 4.
    """

    num_classes: int
    dtype: DTypeLike
    ghost_batch_size: int
    stage_sizes: tuple[int, ...]
    stage_widths: tuple[int, ...]
    bottleneck: bool
    stem: str
    stem_stride: int
    base_width: int = 64
    cardinality: int = 1
    avg_down: bool = False
    blur_pool: bool = False
    stage2_pool: bool = False
    stage3_pool: bool = False
    stage4_pool: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool
    ) -> tuple[Float[Array, "batch classes"] | None, dict[str, Float[Array, "batch ..."]]]:
        """Classifies.

        Args:
            images: Normalised images, float32.
            train: Whether BatchNorm uses and moves the statistics of the batch; the collection
                "batch_stats" must then be mutable.

        Returns:
            The logits, None without a head; and features by name: each block's output as
            "stage1_block1" and so on, [batch, height, width, channels], and "embedding",
            [batch, channels], their mean over pixels after the last block. All float32.

        Raises:
            UserError: The images have a shape or dtype that the network cannot take.
        """
        check_images(images)
        features = {}
        x = self._apply_stem(images, train)
        pools = (False, self.stage2_pool, self.stage3_pool, self.stage4_pool)
        stages = zip(self.stage_sizes, self.stage_widths, pools, strict=False)
        for stage, (size, width, pool) in enumerate(stages, 1):
            if pool:
                self._check_even(x, stage, images)
            for block in range(1, size + 1):
                halves = block == 1 and stage > 1
                name = f"stage{stage}_block{block}"
                x = Block(
                    width=width,
                    stride=2 if halves else 1,
                    bottleneck=self.bottleneck,
                    pool=("max" if pool else "blur" * self.blur_pool) if halves else "",
                    inner_width=width * self.base_width // 64 * self.cardinality,
                    groups=self.cardinality,
                    avg_down=self.avg_down,
                    ghost_batch_size=self.ghost_batch_size,
                    dtype=self.dtype,
                    name=name,
                )(x, train=train)
                features[name] = x.astype(jnp.float32)
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        features["embedding"] = embedding
        if not self.num_classes:
            return None, features
        logits = nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            kernel_init=torch_uniform,
            bias_init=torch_uniform_bias(embedding.shape[-1]),
            name="head",
        )(embedding)
        return logits.astype(jnp.float32), features

    def _apply_stem(self, x: FeatureMap, train: bool) -> FeatureMap:
        def normed(x: FeatureMap, width: int, kernel: int, stride: int, suffix: str) -> FeatureMap:
            x = conv(width, kernel, stride, self.dtype, f"conv{suffix}")(x)
            x = BatchNorm(self.ghost_batch_size, self.dtype, name=f"bn{suffix}")(x, train=train)
            return nn.relu(x)

        width = self.stage_widths[0]
        if self.stem == "cifar":
            return normed(x, width, 3, self.stem_stride, "1")
        if self.stem == "deep":
            x = normed(normed(x, width // 2, 3, 2, "1a"), width // 2, 3, 1, "1b")
            x = normed(x, width, 3, 1, "1")
        else:
            x = normed(x, width, 7, 2, "1")
        if self.blur_pool:
            return blur_pool(max_pool(x, 3, 1, padding=1))
        return max_pool(x, 3, 2, padding=1)

    def _check_even(self, x: FeatureMap, stage: int, images: Array) -> None:
        """Refuses an odd side: the max-pool rounds it down and the strided shortcut up."""
        _, height, width, _ = x.shape
        if height % 2 or width % 2:
            stem = self.stem_stride if self.stem == "cifar" else 4
            raise UserError(
                f"stage{stage}_pool halves feature maps of {height}x{width}, which is odd; images "
                f"are {images.shape[1]}x{images.shape[2]}, expected sides divisible by "
                f"{stem * 2 ** (stage - 1)}"
            )
