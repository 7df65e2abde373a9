"""Vision transformers in timm's layout."""

import functools
from typing import Any

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
    return nn.Dense(width, dtype=dtype, kernel_init=timm_normal, dot_general=_multiplied, name=name)


def _multiplied(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """`jax.lax.dot_general` of tokens and a matrix.

    On CPUs all tokens stand in one matrix: XLA's gradients are then a third faster. A TPU would
    copy them, as 197 tokens are no whole number of its tiles.
    """

    def of_rows(x: Array, kernel: Array) -> Array:
        rows = jax.lax.dot_general(
            x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options
        )
        return rows.reshape(*x.shape[:-1], -1)

    whole = functools.partial(jax.lax.dot_general, dimension_numbers=dimensions, **options)
    return jax.lax.platform_dependent(x, kernel, cpu=of_rows, default=whole)


Heads = Float[Array, "batch tokens heads depth"]


def attend(query: Heads, key: Heads, value: Heads) -> Heads:
    """Scaled dot-product attention; the softmax is float32 always.

    Args:
        query: What each token asks, of each head.
        key: What it is asked by.
        value: What it answers.

    Returns:
        The answers, weighed.
    """
    logits = jnp.einsum("nqhd,nkhd->nhqk", query, key, preferred_element_type=jnp.float32)
    weights = _softmax(logits * query.shape[-1] ** -0.5, value.dtype)
    return jnp.einsum("nhqk,nkhd->nqhd", weights, value)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(logits: Array, dtype: DTypeLike) -> Array:
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


@_softmax.defjvp
def _(dtype: DTypeLike, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The weights are kept for the backward pass as they are used, in half the memory.
    weights, (moved,) = _softmax(*primals, dtype), tangents
    moved = moved - jnp.sum(weights * moved, axis=-1, keepdims=True)
    return weights, (weights * moved).astype(dtype)


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
        batch, tokens, width = x.shape
        y = layer_norm(self.dtype, "norm1")(x)
        y = dense(3 * width, self.dtype, "qkv")(y)
        # Cut from whole columns: a TPU would copy an axis of three.
        parts = jnp.split(y, 3, axis=-1)
        y = attend(*(part.reshape(batch, tokens, self.heads, -1) for part in parts))
        x = x + dense(width, self.dtype, "proj")(y.reshape(x.shape))
        y = layer_norm(self.dtype, "norm2")(x)
        y = nn.gelu(dense(4 * width, self.dtype, "fc1")(y), approximate=False)
        return x + dense(width, self.dtype, "fc2")(y)


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
