"""Where does invariance come from: architecture, data or augmentation?

A JAX system after "Grounding inductive biases in natural images: invariance stems from
variations in data" (NeurIPS 2021, arXiv 2106.05121).
"""

__version__ = "0.1.0"
