"""Vision transformers in timm's layout."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from invariance_jax.errors import UserError
from invariance_jax.models.layers import (
    check_images,
    timm_class_token,
    timm_normal,
    torch_uniform,
    torch_uniform_bias,
)

Tokens = Float[Array, "batch tokens width"]


def dense(width: int, dtype: DTypeLike, name: str) -> nn.Dense:
    """Makes a dense layer with timm's initial values.

    Args:
        width: Length of the output.
        dtype: What it computes in.
        name: Of its parameters.

    Returns:
        The layer.
    """
    return nn.Dense(width, dtype=dtype, kernel_init=timm_normal, name=name)


def layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Makes timm's layer normalisation.

    Args:
        dtype: Of the result; statistics are computed in float32.
        name: Of its parameters.

    Returns:
        The layer.
    """
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, then a perceptron four times as wide.

    Attributes:
        heads: Attention heads.
        dtype: What it computes in; the softmax is float32 always.
    """

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Applies the block.

        Args:
            x: Tokens.

        Returns:
            Tokens of the same shape.
        """
        shape = x.shape
        batch, tokens, width = shape
        # All tokens in one matrix: XLA's gradients of the dense layers are then a third faster on
        # CPUs, and elsewhere the same.
        x = x.reshape(batch * tokens, width)
        y = layer_norm(self.dtype, "norm1")(x)
        y = dense(3 * width, self.dtype, "qkv")(y)
        y = y.reshape(batch, tokens, 3, self.heads, width // self.heads)
        y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        x = x + dense(width, self.dtype, "proj")(y.reshape(x.shape))
        y = layer_norm(self.dtype, "norm2")(x)
        y = nn.gelu(dense(4 * width, self.dtype, "fc1")(y), approximate=False)
        return (x + dense(width, self.dtype, "fc2")(y)).reshape(shape)


class VisionTransformer(nn.Module):
    """A vision transformer with a class token and learned position embeddings.

    Dosovitskiy et al., "An image is worth 16x16 words" (arXiv 2010.11929). It has no BatchNorm
    and no dropout: `train` changes nothing.

    Attributes:
        num_classes: Length of the logits; 0 for a network without a head.
        dtype: What it computes in; parameters are float32 always.
        patch: Side of a patch, pixels.
        width: Length of a token.
        depth: Blocks.
        heads: Attention heads of a block.
        remat: Compute a block's activations again in the backward pass instead of keeping them.
    """

    num_classes: int
    dtype: DTypeLike
    patch: int
    width: int
    depth: int
    heads: int
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch side side 3"], *, train: bool
    ) -> tuple[Float[Array, "batch classes"] | None, dict[str, Float[Array, "batch ..."]]]:
        """Classifies.

        Args:
            images: Normalised images, float32, of the size that the network was initialised at.
            train: Taken for the sake of a common interface; without effect.

        Returns:
            The logits, None without a head; and features by name: each block's output as "block1"
            and so on, [batch, 1 + patches, width] with the class token first, and "embedding",
            [batch, width], the class token after the last norm. All float32.

        Raises:
            UserError: The images are not square, not divisible into patches, or of another
                size than at initialisation.
        """
        check_images(images)
        grid = self._check_grid(images)
        features = {}
        x = nn.Conv(
            self.width,
            (self.patch, self.patch),
            strides=(self.patch, self.patch),
            padding="VALID",
            dtype=self.dtype,
            kernel_init=torch_uniform,
            bias_init=torch_uniform_bias(3 * self.patch**2),
            name="patch_embed",
        )(images)
        x = x.reshape(x.shape[0], grid**2, self.width)
        shape = (1, 1 + grid**2, self.width)
        cls_token = self.param("cls_token", timm_class_token, (1, 1, self.width), jnp.float32)
        pos_embed = self.param("pos_embed", timm_normal, shape, jnp.float32)
        first = jnp.broadcast_to(cls_token, (x.shape[0], 1, self.width))
        x = jnp.concatenate([first.astype(self.dtype), x], axis=1) + pos_embed.astype(self.dtype)
        block = nn.remat(Block) if self.remat else Block
        for number in range(1, self.depth + 1):
            name = f"block{number}"
            x = block(self.heads, self.dtype, name=name)(x)
            features[name] = x.astype(jnp.float32)
        # The norm works on each token alone: only the class token is needed.
        embedding = layer_norm(self.dtype, "norm")(x[:, 0])
        features["embedding"] = embedding.astype(jnp.float32)
        if not self.num_classes:
            return None, features
        logits = dense(self.num_classes, self.dtype, "head")(embedding)
        return logits.astype(jnp.float32), features

    def _check_grid(self, images: Array) -> int:
        """The number of patches along one side."""
        _, height, width, _ = images.shape
        if height != width:
            raise UserError(f"images are {height}x{width}; a vision transformer expects squares")
        if height % self.patch:
            raise UserError(
                f"images are {height}x{width}; expected a side divisible by the patch size, "
                f"{self.patch}"
            )
        grid = height // self.patch
        if self.has_variable("params", "pos_embed"):
            patches = self.get_variable("params", "pos_embed").shape[1] - 1
            if patches != grid**2:
                side = round(patches**0.5) * self.patch
                raise UserError(
                    f"images are {height}x{width}; this vision transformer was initialised at "
                    f"{side}x{side} and its position embeddings fit that size only"
                )
        return grid
