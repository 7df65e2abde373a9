"""Answers from results: tables for the terminal, figures for papers, one page that needs no net."""

from invariance_jax.report import style
from invariance_jax.report.load import Results, read
from invariance_jax.report.page import write

__all__ = ["Results", "read", "write"]
