"""Accuracy and invariance of a model: from images and variables to labelled results."""
