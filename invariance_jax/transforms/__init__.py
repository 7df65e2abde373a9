"""Pure image functions and the tables of them; knows no models and no files."""

from invariance_jax.transforms import generators, resize
from invariance_jax.transforms.generators import Generator
from invariance_jax.transforms.geometric import REFERENCE_SIZE, PaddingMode
from invariance_jax.transforms.tables import AUTOAUGMENT, TRANSFORMS
from invariance_jax.transforms.transform import Colour, Domain, Transform, in_domain, normalize
