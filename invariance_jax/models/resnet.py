"""ResNets in torchvision's v1.5 layout, and the original's modified ResNet-18."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from invariance_jax.errors import UserError
from invariance_jax.models.convolution import convolve, max_pool
from invariance_jax.models.layers import (
    BatchNorm,
    check_images,
    kaiming_normal_fan_out,
    torch_uniform,
    torch_uniform_bias,
)

# [batch, height, width, channels]; a block changes all but the first.
FeatureMap = Float[Array, "batch _ _ _"]


def conv(width: int, kernel: int, stride: int, dtype: DTypeLike, name: str) -> nn.Conv:
    """Makes a convolution without bias, padded on all sides alike, as torch does.

    Args:
        width: Output channels.
        kernel: Side of the kernel; padded by half of it.
        stride: Step in both directions.
        dtype: What it computes in.
        name: Of its parameters.

    Returns:
        The layer. Flax's "SAME" would pad strided convolutions on one side only.
    """
    return nn.Conv(
        width,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=kaiming_normal_fan_out,
        conv_general_dilated=convolve,
        name=name,
    )


class Block(nn.Module):
    """One residual block: what is learned, added to a shortcut, then ReLU.

    Attributes:
        width: Channels inside the block; a bottleneck gives out four times as many.
        stride: Of the block; on the 3x3 convolution (the first of two in a basic block).
        bottleneck: 1x1, 3x3, 1x1 convolutions instead of 3x3, 3x3.
        pool: The basic block's stride is taken by a max-pool after the first ReLU instead of
            by the first convolution; the shortcut keeps its strided convolution.
        ghost_batch_size: How many images share BatchNorm statistics; 0 for the whole batch.
        dtype: What it computes in.
    """

    width: int
    stride: int
    bottleneck: bool
    pool: bool
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
        if self.bottleneck:
            out_width = 4 * self.width
            y = nn.relu(normed(x, self.width, 1, 1, "1"))
            y = nn.relu(normed(y, self.width, 3, self.stride, "2"))
            y = normed(y, out_width, 1, 1, "3")
        else:
            out_width = self.width
            y = nn.relu(normed(x, self.width, 3, 1 if self.pool else self.stride, "1"))
            if self.pool:
                y = max_pool(y, self.stride, self.stride)
            y = normed(y, self.width, 3, 1, "2")
        if self.stride != 1 or x.shape[-1] != out_width:
            x = normed(x, out_width, 1, self.stride, "_shortcut")
        return nn.relu(x + y)

    def _normed_conv(
        self, x: FeatureMap, width: int, kernel: int, stride: int, suffix: str, *, train: bool
    ) -> FeatureMap:
        x = conv(width, kernel, stride, self.dtype, f"conv{suffix}")(x)
        return BatchNorm(self.ghost_batch_size, self.dtype, name=f"bn{suffix}")(x, train=train)


class ResNet(nn.Module):
    """Stages of residual blocks, each stage at half the resolution of the one before.

    He et al., "Deep residual learning for image recognition" (arXiv 1512.03385). Shortcuts that
    change shape are 1x1 convolutions everywhere, in the CIFAR family too.

    Attributes:
        num_classes: Length of the logits; 0 for a network without a head.
        dtype: What it computes in; parameters and statistics are float32 always.
        ghost_batch_size: How many images share BatchNorm statistics; 0 for the whole batch.
        stage_sizes: Blocks of each stage.
        stage_widths: Channels inside the blocks of each stage.
        bottleneck: Kind of block.
        stem: "imagenet" (7x7 with stride 2, 3x3 max-pool with stride 2) or "cifar" (3x3).
        stem_stride: Stride of the cifar stem.
        stage2_pool: Stage 2 halves by max-pool (see `Block.pool`); basic blocks only.
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
                starts = block == 1
                name = f"stage{stage}_block{block}"
                x = Block(
                    width=width,
                    stride=2 if starts and stage > 1 else 1,
                    bottleneck=self.bottleneck,
                    pool=pool and starts,
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
        imagenet = self.stem == "imagenet"
        kernel, stride = (7, 2) if imagenet else (3, self.stem_stride)
        x = conv(self.stage_widths[0], kernel, stride, self.dtype, "conv1")(x)
        x = nn.relu(BatchNorm(self.ghost_batch_size, self.dtype, name="bn1")(x, train=train))
        if imagenet:
            x = max_pool(x, 3, 2, padding=1)
        return x

    def _check_even(self, x: FeatureMap, stage: int, images: Array) -> None:
        """Refuses an odd side: the max-pool rounds it down and the strided shortcut up."""
        _, height, width, _ = x.shape
        if height % 2 or width % 2:
            stem = 4 if self.stem == "imagenet" else self.stem_stride
            raise UserError(
                f"stage{stage}_pool halves feature maps of {height}x{width}, which is odd; images "
                f"are {images.shape[1]}x{images.shape[2]}, expected sides divisible by "
                f"{stem * 2 ** (stage - 1)}"
            )
