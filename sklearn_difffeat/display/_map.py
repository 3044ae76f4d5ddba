"""Picture of a search; matplotlib is imported when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_difffeat.display._palette import COLORS, new_axes
from sklearn_difffeat.display._search_map import read_search


class BlockTimestepDisplay:
    """Heat map of a search's score over block and timestep.

    Make one with :meth:`from_search`.

    Parameters
    ----------
    scores : ndarray of shape (n_blocks, n_timesteps)
        Best mean test score over all other parameters; NaN where nothing was tried.
    blocks, timesteps : sequence
        Values of the rows and columns.
    path : list of tuple of (row, column), default=()
        The places that a local search went to, in order.
    score_name : str, default="mean test score"
        Label of the colour bar.
    title : str, default=None
        Written above.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    im_ : matplotlib AxesImage
    text_ : ndarray of matplotlib Text or None, of the shape of ``scores``

    See Also
    --------
    LocalSearchCV : Search without a full grid.

    Examples
    --------
    >>> from sklearn_difffeat import BlockTimestepDisplay
    >>> display = BlockTimestepDisplay([[0.2, 0.3], [0.4, 0.1]], [4, 8], [0, 100])
    >>> display.plot().ax_.get_ylabel()
    'block'
    """

    def __init__(
        self,
        scores: Any,
        blocks: Sequence[Any],
        timesteps: Sequence[Any],
        *,
        path: Sequence[tuple[int, int]] = (),
        score_name: str = "mean test score",
        title: str | None = None,
    ) -> None:
        self.scores = scores
        self.blocks = blocks
        self.timesteps = timesteps
        self.path = path
        self.score_name = score_name
        self.title = title

    @classmethod
    def from_search(
        cls,
        search: Any,
        *,
        modality: str | None = None,
        metric: str | None = None,
        ax: Any = None,
        **plot_options: Any,
    ) -> BlockTimestepDisplay:
        """Draw the map of a fitted search.

        Parameters
        ----------
        search : fitted LocalSearchCV, GridSearchCV or other search of scikit-learn
            With a parameter ``block`` or ``timestep`` of a transformer in its space.
        modality : str, default=None
            "image" or "text", or any part of the parameters' path that only one
            transformer has; None where there is only one.
        metric : str, default=None
            Which one of several metrics; None is the one of ``refit``, else the first.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **plot_options
            Passed to :meth:`plot`.

        Returns
        -------
        BlockTimestepDisplay

        Raises
        ------
        ImportError
            When matplotlib is missing.
        ValueError
            When the search has no such modality, several, or no such metric.

        Examples
        --------
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.pipeline import Pipeline
        >>> from sklearn_difffeat import (
        ...     BlockTimestepDisplay, FusionClassifier, TextDiffusionFeatureTransformer)
        >>> model = Pipeline([
        ...     ("text", TextDiffusionFeatureTransformer(cache=True)),
        ...     ("head", FusionClassifier())])
        >>> search = GridSearchCV(
        ...     model, {"text__block": [2, 4], "text__timestep": [0]}, cv=2)
        >>> _ = search.fit(["a bird", "two birds", "a car", "cars"], [0, 0, 1, 1])
        >>> BlockTimestepDisplay.from_search(search).scores.shape
        (2, 1)
        """
        check_matplotlib_support(f"{cls.__name__}.from_search")
        display = cls(**read_search(search, modality, metric))
        return display.plot(ax=ax, **plot_options)

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: str = "cividis",
        include_values: bool = True,
        values_format: str = ".3f",
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
    ) -> BlockTimestepDisplay:
        """Draw the map: hatched where nothing was tried, a star at the best.

        The path of a walk is a line that begins at an open circle.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        cmap : str or Colormap, default="cividis"
            Looks the same to colour-blind readers, and can be printed in grey.
        include_values : bool, default=True
            Write the score into every cell that was tried.
        values_format : str, default=".3f"
            Format of these scores.
        colorbar : bool, default=True
            Add a colour bar.
        im_kw : dict, default=None
            Passed to ``imshow``.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            When matplotlib is missing.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        scores = np.ma.masked_invalid(np.asarray(self.scores, dtype=float))
        figure, ax = new_axes(ax)
        # The hatches are visible through the masked cells of the image.
        ax.patch.set(facecolor="white", edgecolor="0.75", hatch="///")
        options = {"cmap": cmap, "aspect": "auto", "origin": "lower"} | (im_kw or {})
        self.im_ = ax.imshow(scores, **options)
        self.text_ = np.full(scores.shape, None, dtype=object)
        if include_values:
            for row, column in np.argwhere(~np.ma.getmaskarray(scores)):
                self._write_value(ax, scores, row, column, values_format)
        if len(self.path) > 1:
            self._draw_path(ax)
        if scores.count():
            row, column = np.unravel_index(int(scores.argmax()), scores.shape)
            star = {"ms": 14, "mfc": "white", "mec": "black", "mew": 1.2}
            ax.plot(column, row + 0.22, "*", zorder=5, **star)
        ax.set_xticks(range(len(self.timesteps)), [str(t) for t in self.timesteps])
        ax.set_yticks(range(len(self.blocks)), [str(b) for b in self.blocks])
        ax.set_xlabel("timestep", fontsize=12)
        ax.set_ylabel("block", fontsize=12)
        ax.tick_params(labelsize=11)
        if self.title:
            ax.set_title(self.title, fontsize=12)
        if colorbar:
            bar = figure.colorbar(self.im_, ax=ax)
            bar.set_label(self.score_name, fontsize=12)
        self.figure_, self.ax_ = figure, ax
        return self

    def _write_value(
        self, ax: Any, scores: Any, row: int, column: int, values_format: str
    ) -> None:
        from matplotlib.patheffects import withStroke

        below = self.im_.cmap(self.im_.norm(scores[row, column]))
        dark = np.dot(below[:3], (0.299, 0.587, 0.114)) < 0.5
        self.text_[row, column] = ax.text(
            column, row - 0.2, format(scores[row, column], values_format),
            ha="center", va="center", fontsize=10, zorder=4,
            color="white" if dark else "black",
            # Keeps the numbers legible where the path runs behind them.
            path_effects=[withStroke(linewidth=2.5, foreground=below)],
        )  # fmt: skip

    def _draw_path(self, ax: Any) -> None:
        rows, columns = np.array(self.path).T
        rows = rows + 0.22
        ax.plot(columns, rows, "-", color="white", lw=4, zorder=2)
        ax.plot(columns, rows, "-", color=COLORS[3], lw=2, zorder=3)
        ax.plot(columns, rows, "o", color=COLORS[3], mec="white", ms=6, zorder=3)
        start = {"mfc": "white", "mec": COLORS[3], "mew": 2, "ms": 8}
        ax.plot(columns[0], rows[0], "o", zorder=3, **start)
