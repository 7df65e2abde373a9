"""Sweeps: many runs of configs, for `launch/sweep.py`."""
