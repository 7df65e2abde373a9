"""Factors of variation: which operations explain how the images of a class differ."""
