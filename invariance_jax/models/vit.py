"""Vision transformers in timm's layout, with what changes their forward pass as options."""

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
    timm_normal,
    timm_small_normal,
    torch_uniform,
    torch_uniform_bias,
)

Tokens = Float[Array, "batch tokens width"]


def dense(width: int, dtype: DTypeLike, name: str, *, use_bias: bool = True) -> nn.Dense:
    """Makes a dense layer with timm's initial values.

    Args:
        width: Length of the output.
        dtype: What it computes in.
        name: Of its parameters.
        use_bias: Whether it has a bias.

    Returns:
        The layer.
    """
    return nn.Dense(
        width,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=timm_normal,
        dot_general=_multiplied,
        name=name,
    )


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


def layer_norm(epsilon: float, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Makes torch's layer normalisation.

    Args:
        epsilon: What is added to the variance.
        dtype: Of the result; statistics are computed in float32.
        name: Of its parameters.

    Returns:
        The layer.
    """
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _quick_gelu(x: Array) -> Array:
    """OpenAI's approximation of GELU, with which its CLIP was trained."""
    return x * nn.sigmoid(1.702 * x)


def _swiglu(x: Array) -> Array:
    """Half of the columns gates the other half (Shazeer, arXiv 2002.05202, Eq. 6)."""
    gate, value = jnp.split(x, 2, axis=-1)
    return nn.silu(gate) * value


# timm begins SwiGLU's second half at almost nothing; here both halves begin alike.
ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "quick_gelu": _quick_gelu,
    "swiglu": _swiglu,
}


class Block(nn.Module):
    """A transformer block: normalised self-attention, then a normalised perceptron.

    Attributes:
        heads: Attention heads.
        dtype: What it computes in; the softmax is float32 always.
        mlp_ratio: Outputs of the perceptron's first layer, in widths; its second layer sees half of
            them with "swiglu".
        activation: A key of `ACTIVATIONS`.
        qkv_bias: Whether queries, keys and values have a bias.
        qk_norm: Whether queries and keys are normalised, each head alone.
        init_values: What every branch is multiplied by at first, channel by channel (LayerScale,
            arXiv 2103.17239); None for no such factors.
        epsilon: Of the layer normalisations.
    """

    heads: int
    dtype: DTypeLike
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qkv_bias: bool = True
    qk_norm: bool = False
    init_values: float | None = None
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Applies the block.

        Args:
            x: Tokens.

        Returns:
            Tokens of the same shape.
        """
        batch, tokens, width = x.shape
        norm = functools.partial(layer_norm, self.epsilon, self.dtype)
        y = norm("norm1")(x)
        y = dense(3 * width, self.dtype, "qkv", use_bias=self.qkv_bias)(y)
        # Cut from whole columns: a TPU would copy an axis of three.
        parts = jnp.split(y, 3, axis=-1)
        query, key, value = (part.reshape(batch, tokens, self.heads, -1) for part in parts)
        if self.qk_norm:
            query, key = norm("q_norm")(query), norm("k_norm")(key)
        y = attend(query, key, value)
        x = x + self._scaled(dense(width, self.dtype, "proj")(y.reshape(x.shape)), "ls1")
        y = norm("norm2")(x)
        y = dense(int(self.mlp_ratio * width), self.dtype, "fc1")(y)
        y = ACTIVATIONS[self.activation](y)
        return x + self._scaled(dense(width, self.dtype, "fc2")(y), "ls2")

    def _scaled(self, y: Tokens, name: str) -> Tokens:
        if self.init_values is None:
            return y
        initial = nn.initializers.constant(self.init_values)
        gamma = self.param(name, initial, y.shape[-1:], jnp.float32)
        return y * gamma[None, None].astype(self.dtype)


class VisionTransformer(nn.Module):
    """A vision transformer with learned position embeddings.

    Dosovitskiy et al., "An image is worth 16x16 words" (arXiv 2010.11929). Options have timm's
    names. It has no BatchNorm and no dropout: `train` changes nothing.

    Attributes:
        num_classes: Length of the logits; 0 for a network without a head.
        dtype: What it computes in; parameters are float32 always.
        patch: Side of a patch, pixels.
        width: Length of a token.
        depth: Blocks.
        heads: Attention heads of a block.
        mlp_ratio: See `Block`.
        activation: See `Block`.
        qkv_bias: See `Block`.
        qk_norm: See `Block`.
        init_values: See `Block`.
        epsilon: Of the layer normalisations.
        class_token: Whether a learned token stands before the patches.
        reg_tokens: How many register tokens stand after the class token (arXiv 2309.16588).
        distilled: Whether a distillation token stands after the class token, with a head of its own
            (DeiT, arXiv 2012.12877); logits and embeddings of the two are averaged.
        no_embed_class: Only patches have position embeddings, not the tokens before them.
        pre_norm: Tokens are normalised before the first block, and patches embedded without bias,
            as in CLIP.
        global_pool: What the embedding is made of: "token" (the class token) or "avg" (the mean
            over the patches' tokens).
        fc_norm: Normalise after that mean instead of before; None for wherever there is a mean.
        remat: Compute a block's activations again in the backward pass instead of keeping them.
    """

    num_classes: int
    dtype: DTypeLike
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qkv_bias: bool = True
    qk_norm: bool = False
    init_values: float | None = None
    epsilon: float = 1e-6
    class_token: bool = True
    reg_tokens: int = 0
    distilled: bool = False
    no_embed_class: bool = False
    pre_norm: bool = False
    global_pool: str = "token"
    fc_norm: bool | None = None
    remat: bool = False

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before those of the patches."""
        return self.class_token + self.distilled + self.reg_tokens

    @property
    def embedded_prefix(self) -> int:
        """How many of these have position embeddings."""
        return 0 if self.no_embed_class else self.prefix_tokens

    @property
    def norm_after_pool(self) -> bool:
        """Whether the last norm sees the embedding, not the tokens."""
        return self.global_pool == "avg" if self.fc_norm is None else self.fc_norm

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
            and so on, [batch, tokens, width] with class, distillation and register tokens first,
            and "embedding", [batch, width], what the head sees: the class token after the last
            norm, its mean with the distillation token, or the normalised mean of patches. All
            float32.

        Raises:
            UserError: The images are not square, not divisible into patches, or of another
                size than at initialisation.
        """
        check_images(images)
        grid = self._check_grid(images)
        features = {}
        x = self._embed(images, grid)
        block = nn.remat(Block) if self.remat else Block
        for number in range(1, self.depth + 1):
            name = f"block{number}"
            x = block(
                heads=self.heads,
                dtype=self.dtype,
                mlp_ratio=self.mlp_ratio,
                activation=self.activation,
                qkv_bias=self.qkv_bias,
                qk_norm=self.qk_norm,
                init_values=self.init_values,
                epsilon=self.epsilon,
                name=name,
            )(x)
            features[name] = x.astype(jnp.float32)
        pooled = self._pool(x)
        features["embedding"] = jnp.mean(pooled.astype(jnp.float32), axis=1)
        if not self.num_classes:
            return None, features
        heads = ("head", "head_dist") if self.distilled else ("head",)
        logits = [
            dense(self.num_classes, self.dtype, name)(pooled[:, index]).astype(jnp.float32)
            for index, name in enumerate(heads)
        ]
        return sum(logits) / len(logits), features

    def _embed(self, images: Array, grid: int) -> Tokens:
        """The tokens that the first block sees."""
        x = nn.Conv(
            self.width,
            (self.patch, self.patch),
            strides=(self.patch, self.patch),
            padding="VALID",
            use_bias=not self.pre_norm,
            dtype=self.dtype,
            kernel_init=torch_uniform,
            bias_init=torch_uniform_bias(3 * self.patch**2),
            name="patch_embed",
        )(images)
        x = x.reshape(x.shape[0], grid**2, self.width)
        prefix = []
        for name, count, initial in (
            ("cls_token", int(self.class_token), timm_small_normal),
            ("dist_token", int(self.distilled), timm_normal),
            ("reg_token", self.reg_tokens, timm_small_normal),
        ):
            if count:
                token = self.param(name, initial, (1, count, self.width), jnp.float32)
                token = jnp.broadcast_to(token, (x.shape[0], count, self.width))
                prefix.append(token.astype(self.dtype))
        shape = (1, self.embedded_prefix + grid**2, self.width)
        positions = self.param("pos_embed", timm_normal, shape, jnp.float32).astype(self.dtype)
        if self.no_embed_class:
            x = jnp.concatenate([*prefix, x + positions], axis=1)
        else:
            x = jnp.concatenate([*prefix, x], axis=1) + positions
        return layer_norm(self.epsilon, self.dtype, "norm_pre")(x) if self.pre_norm else x

    def _pool(self, x: Tokens) -> Float[Array, "batch pooled width"]:
        """What the heads see, one token for each."""
        average, after = self.global_pool == "avg", self.norm_after_pool
        norm = layer_norm(self.epsilon, self.dtype, "fc_norm" if after else "norm")
        # The norm works on each token alone: only those that are used are needed.
        x = x[:, self.prefix_tokens :] if average else x[:, : 1 + self.distilled]
        if average and not after:
            x = norm(x)
        if average:
            x = jnp.mean(x.astype(jnp.float32), axis=1, keepdims=True).astype(self.dtype)
        return x if average and not after else norm(x)

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
            patches = self.get_variable("params", "pos_embed").shape[1] - self.embedded_prefix
            if patches != grid**2:
                side = round(patches**0.5) * self.patch
                raise UserError(
                    f"images are {height}x{width}; this vision transformer was initialised at "
                    f"{side}x{side} and its position embeddings fit that size only"
                )
        return grid
