"""Cells to model inputs: a column of X, decoding, readers of images and texts."""
