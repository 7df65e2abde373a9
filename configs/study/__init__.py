"""The study of docs/results.md: the paper's five claims on real images at 64 pixels."""
