"""Factors of variation: what differs between the images of a class (paper, section 4).

The functions here work on arrays, of embeddings from any model; `search` measures a data set.
"""

from invariance_jax.factors.rows import Row, signs
from invariance_jax.factors.statistics import changes, pairs, statistics
