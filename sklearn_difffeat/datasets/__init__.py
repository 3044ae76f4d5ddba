"""Data sets that ship with the package; loading needs no network."""

from sklearn_difffeat.datasets._openclipart import load_openclipart

__all__ = ["load_openclipart"]
