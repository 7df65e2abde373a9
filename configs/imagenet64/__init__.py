"""Twins of the paper's experiments at 64 pixels."""
