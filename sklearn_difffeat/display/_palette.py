"""Colours, markers and the figure that the pictures share."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers; grey is for the others.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def new_axes(ax: Any) -> tuple[Any, Any]:
    """The figure of some axes and these; both new where there are none."""
    if ax is not None:
        return ax.figure, ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6, 4.2), dpi=150, layout="constrained")
