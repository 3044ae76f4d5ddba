"""Colours, markers and the figure, for all pictures."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey is for the
# other points.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def new_axes(ax: Any) -> tuple[Any, Any]:
    """The figure of the axes, and the axes; both are created if there are none."""
    if ax is not None:
        return ax.figure, ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6, 4.2), dpi=150, layout="constrained")
