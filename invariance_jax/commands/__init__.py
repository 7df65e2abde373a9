"""The commands of `python -m invariance_jax`: the edge where flags and files are."""
