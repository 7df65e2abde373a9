"""The paper's experiments, one file each; README.md maps claims and figures to their commands."""
