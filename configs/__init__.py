"""Experiments, one file each; the only place of hyper-parameters."""
