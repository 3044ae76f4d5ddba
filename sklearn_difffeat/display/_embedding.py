"""Picture of features in the plane; matplotlib is imported when it is drawn."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.manifold import TSNE
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_difffeat._indicator import check_indicator
from sklearn_difffeat.display._palette import COLORS, MARKERS, new_axes


class EmbeddingDisplay:
    """Points of a t-SNE of features, coloured by their most frequent labels.

    Make one with :meth:`from_features`.

    Parameters
    ----------
    embedding : ndarray of shape (n_rows, 2)
        Points in the plane.
    colors_of : ndarray of shape (n_rows,)
        Number of the shown label of each row, -1 for no label of these or several.
    names : sequence of str
        Names of the shown labels.
    title : str, default=None
        Written above.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    See Also
    --------
    clustering_report : Figures for the same features.

    Examples
    --------
    >>> from sklearn_difffeat import EmbeddingDisplay
    >>> display = EmbeddingDisplay([[0, 0], [1, 1]], [0, 1], ["bird", "car"])
    >>> len(display.plot().ax_.get_legend().get_texts())
    2
    """

    def __init__(
        self,
        embedding: Any,
        colors_of: Any,
        names: Sequence[str],
        *,
        title: str | None = None,
    ) -> None:
        self.embedding = embedding
        self.colors_of = colors_of
        self.names = names
        self.title = title

    @classmethod
    def from_features(
        cls,
        Z: Any,
        Y: Any,
        *,
        target_names: Sequence[str] | None = None,
        n_labels: int = 7,
        perplexity: float = 30.0,
        random_state: int | np.random.RandomState | None = 0,
        title: str | None = None,
        ax: Any = None,
        **plot_options: Any,
    ) -> EmbeddingDisplay:
        """Compute the t-SNE of features and draw it.

        Parameters
        ----------
        Z : array-like of shape (n_rows, n_features)
            Features.
        Y : array-like of shape (n_rows,), or array-like or sparse matrix of shape \
(n_rows, n_labels)
            Classes, or an indicator matrix. A row that has exactly one of the shown
            labels takes its colour; all others are small and grey.
        target_names : sequence of str, default=None
            Names of the columns of Y, or of its sorted classes.
        n_labels : int, default=7
            How many labels to show, the most frequent ones; at most 7, because more
            colours are hard to tell apart.
        perplexity : float, default=30.0
            As in :class:`~sklearn.manifold.TSNE`; lowered where there are few rows.
        random_state : int, RandomState or None, default=0
            Seeds the t-SNE.
        title : str, default=None
            Written above.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **plot_options
            Passed to :meth:`plot`.

        Returns
        -------
        EmbeddingDisplay

        Raises
        ------
        ImportError
            When matplotlib is missing.
        ValueError
            When Z holds NaN, lengths differ, an indicator matrix holds anything but 0
            and 1, or ``n_labels`` is not from 1 to 7.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_difffeat import EmbeddingDisplay
        >>> display = EmbeddingDisplay.from_features(
        ...     *load_iris(return_X_y=True), target_names=load_iris().target_names)
        >>> display.embedding.shape
        (150, 2)
        """
        check_matplotlib_support(f"{cls.__name__}.from_features")
        whole = isinstance(n_labels, numbers.Integral)
        if not whole or not 1 <= n_labels <= len(COLORS):
            raise ValueError(
                f"n_labels={n_labels!r} is not from 1 to {len(COLORS)}; more colours "
                "are hard to tell apart."
            )
        Z = check_array(Z, input_name="Z", ensure_min_samples=3)
        indicator, names = _as_indicator(Y, target_names)
        check_consistent_length(Z, indicator)
        counts = indicator.sum(axis=0)
        shown = [i for i in np.argsort(-counts, kind="stable")[:n_labels] if counts[i]]
        kept = indicator[:, shown]
        colors_of = np.where(kept.sum(axis=1) == 1, kept.argmax(axis=1), -1)
        tsne = TSNE(
            perplexity=min(perplexity, (len(Z) - 1) / 3), random_state=random_state
        )
        display = cls(
            tsne.fit_transform(Z), colors_of, [names[i] for i in shown], title=title
        )
        return display.plot(ax=ax, **plot_options)

    def plot(
        self, ax: Any = None, *, size: float = 22.0, legend: bool = True
    ) -> EmbeddingDisplay:
        """Draw the points, each label with a colour and a shape of its own.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        size : float, default=22.0
            Area of a coloured point, in square points.
        legend : bool, default=True
            Name the labels beside the picture.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            When matplotlib is missing.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        figure, ax = new_axes(ax)
        points, colors_of = np.asarray(self.embedding), np.asarray(self.colors_of)
        others = points[colors_of < 0]
        if len(others):
            ax.scatter(*others.T, s=size / 4, c="0.8", lw=0, label="other or several")
        for number, name in enumerate(self.names):
            ax.scatter(
                *points[colors_of == number].T, s=size, c=COLORS[number],
                marker=MARKERS[number], lw=0, alpha=0.85, label=str(name),
            )  # fmt: skip
        # Distances of a t-SNE have no unit, so ticks would be misleading.
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel("t-SNE 1", fontsize=12)
        ax.set_ylabel("t-SNE 2", fontsize=12)
        if self.title:
            ax.set_title(self.title, fontsize=12)
        if legend:
            ax.legend(
                loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=11,
                handletextpad=0.2, borderaxespad=0, markerscale=1.4,
            )  # fmt: skip
        self.figure_, self.ax_ = figure, ax
        return self


def _as_indicator(
    Y: Any, target_names: Sequence[str] | None
) -> tuple[np.ndarray, Sequence[Any]]:
    if np.ndim(Y) == 2:
        indicator = check_indicator(Y, "Y")
        names: Sequence[Any] = range(indicator.shape[1])
    else:
        classes, codes = np.unique(column_or_1d(Y), return_inverse=True)
        indicator = codes[:, None] == np.arange(len(classes))
        names = classes.tolist()
    if target_names is not None:
        if len(target_names) != len(names):
            raise ValueError(
                f"target_names has {len(target_names)} names for {len(names)} labels "
                "of Y; give one per label."
            )
        names = target_names
    return indicator, names
