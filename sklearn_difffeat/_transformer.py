"""The base that the image and the text transformer share."""

from __future__ import annotations

import numbers
import os
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_difffeat._cells import Cells, as_cells, find_missing
from sklearn_difffeat._modalities import ModalityArray

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import Backbone, BackboneInfo
    from sklearn_difffeat.extraction import Plan

DTYPES = ("float32", "bfloat16", "float16")


class DiffusionFeatureTransformer(TransformerMixin, BaseEstimator):
    """Base of the transformers that read features off a frozen diffusion model.

    Subclasses say what a cell is and how a batch of cells becomes features; fitting,
    batching, missing cells, names and the check of the backbone are done here.

    See Also
    --------
    ImageDiffusionFeatureTransformer : Features of images.
    TextDiffusionFeatureTransformer : Features of texts.

    Examples
    --------
    >>> from sklearn_difffeat import (
    ...     DiffusionFeatureTransformer, TextDiffusionFeatureTransformer)
    >>> issubclass(TextDiffusionFeatureTransformer, DiffusionFeatureTransformer)
    True
    """

    _modality: ClassVar[str]
    _accepts_arrays: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, os.PathLike],
        "revision": [str, None],
        "n_draws": [Interval(numbers.Integral, 1, None, closed="left")],
        "batch_size": [
            StrOptions({"auto"}),
            Interval(numbers.Integral, 1, None, closed="left"),
        ],
        "device": [str, None],
        "dtype": [StrOptions({"auto", *DTYPES})],
        "local_files_only": ["boolean"],
        "trust_remote_code": ["boolean"],
        "missing": [StrOptions({"error", "nan"})],
        "random_state": [Interval(numbers.Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _check_cell(self, cell: Any, row: int) -> None:
        """Raise TypeError when a cell is of a kind that cannot be transformed."""

    @abstractmethod
    def _check_input_size(self, info: BackboneInfo) -> None:
        """Raise ValueError when the backbone cannot take the input size asked for."""

    @abstractmethod
    def _check_pooling(self) -> str | tuple[str, int]:
        """Return the validated pooling."""

    @abstractmethod
    def _extract(
        self,
        backbone: Any,
        cells: Sequence[Any],
        rows: np.ndarray,
        plan: Plan,
        counts: Counter[str],
    ) -> np.ndarray:
        """Return the features (n, n_features) of the cells, which stand at ``rows``.

        ``counts`` collects what is to be said once, at the end of the call.
        """

    def _processing_order(self, cells: Cells, rows: np.ndarray) -> np.ndarray:
        """Return the rows in the order in which to process them."""
        return rows

    def _warn(self, counts: Counter[str], n_rows: int) -> None:
        """Say once what was counted over the ``n_rows`` rows of a call."""

    def fit(self, X: Any, y: Any = None) -> DiffusionFeatureTransformer:
        """Validate the parameters and the cells, and resolve the output's size.

        Only the backbone's configuration is read; no weights are loaded and nothing
        is embedded.

        Parameters
        ----------
        X : column of cells
            List, tuple, object array, pandas or polars Series, or one-column
            DataFrame of n_rows cells.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When a parameter, the backbone's name or a cell is not valid.
        TypeError
            When X or a cell is of a kind not accepted.
        OSError
            When the backbone is a hub id that is neither cached nor reachable.
        """
        from sklearn_difffeat.backbones import locate_backbone
        from sklearn_difffeat.extraction._plan import (
            Plan,
            resolve_blocks,
            resolve_timesteps,
        )

        self._validate_params()
        cells = as_cells(X, arrays=self._accepts_arrays)
        self._check_cells(cells)
        source, info = locate_backbone(self.backbone, **self._hub_options())
        if info.modality != self._modality:
            raise ValueError(
                f"backbone={info.name!r} is a model of {info.modality}s, not of "
                f"{self._modality}s; use the transformer for {info.modality}s."
            )
        self._check_input_size(info)
        pooling = self._check_pooling()
        blocks = resolve_blocks(self.block, info.n_blocks, info.name)
        timesteps = resolve_timesteps(self.timestep, info.n_timesteps, info.name)

        plan = Plan(
            blocks=blocks,
            timesteps=timesteps,
            pooling=pooling,
            n_draws=int(self.n_draws),
            seed=int(self.random_state),
        )
        self.n_blocks_ = info.n_blocks
        self.n_timesteps_ = info.n_timesteps
        self.backbone_fingerprint_ = info.fingerprint
        self.block_ = blocks[0] if _is_scalar(self.block) else list(blocks)
        self.timestep_ = timesteps[0] if _is_scalar(self.timestep) else list(timesteps)
        self.n_features_out_ = plan.n_features(info.width)
        self._plan, self._info, self._revision = plan, info, source.revision
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Extract the features of every row.

        Parameters
        ----------
        X : column of cells
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float32
            A row depends on its cell and the parameters alone. With ``missing="nan"``
            the rows of missing cells are NaN.

        Raises
        ------
        ValueError
            When a cell cannot be read, naming its row; or when the backbone found is
            not the one fitted with.
        FileNotFoundError
            When a path leads to no file, naming its row.
        """
        from sklearn_difffeat.backbones import load_backbone, locate_backbone
        from sklearn_difffeat.extraction._engine import split_on_out_of_memory

        check_is_fitted(self)
        cells = as_cells(X, arrays=self._accepts_arrays)
        absent = self._check_cells(cells)
        present = np.flatnonzero(~absent)
        features = np.full((len(cells), self.n_features_out_), np.nan, np.float32)
        if len(present):
            options = self._hub_options() | {"revision": self._revision}
            source, info = locate_backbone(self.backbone, **options)
            self._check_fingerprint(info.fingerprint)
            device = _usable_device(self.device)
            backbone = load_backbone(source, device=device, dtype=self._torch_dtype())
            order = self._processing_order(cells, present)
            plan = self._plan
            counts: Counter[str] = Counter()
            size = self._rows_per_batch(backbone)

            def extract(batch: slice) -> np.ndarray:
                rows = order[batch]
                chosen = [cells[i] for i in rows]
                try:
                    return self._extract(backbone, chosen, rows, plan, counts)
                except MemoryError as error:
                    raise MemoryError(
                        f"row {rows[0]} of X and the {len(rows) - 1} of its batch do "
                        "not fit in memory; choose a smaller batch_size, backbone or "
                        "input size, or another device."
                    ) from error

            with self._progress(len(order)) as progress:
                for start in range(0, len(order), size):
                    whole = slice(start, min(start + size, len(order)))
                    for part, values in split_on_out_of_memory(extract, whole):
                        features[order[part]] = values
                        progress.update(len(values))
            self._warn(counts, len(order))
        return ModalityArray.wrap(features, modality=self._modality)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return ``b{block}_t{timestep}_{i}`` for every column.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        return np.asarray(self._plan.feature_names(self._info.width), dtype=object)

    def _check_cells(self, cells: Cells) -> np.ndarray:
        absent = find_missing(cells)
        if absent.any() and self.missing == "error":
            rows = np.flatnonzero(absent)
            raise ValueError(
                f"row {rows[0]} of X: the cell is missing ({cells[rows[0]]!r}), as in "
                f"{len(rows)} of {len(cells)} rows; drop them, or set missing='nan'."
            )
        for row in np.flatnonzero(~absent).tolist():
            self._check_cell(cells[row], row)
        return absent

    def _check_fingerprint(self, found: str) -> None:
        if found != self.backbone_fingerprint_:
            raise ValueError(
                f"backbone={self.backbone!r} is not the one this transformer was "
                f"fitted with (found {found}, fitted with "
                f"{self.backbone_fingerprint_}); restore that backbone or fit again."
            )

    def _hub_options(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "local_files_only": self.local_files_only,
            "trust_remote_code": self.trust_remote_code,
        }

    def _torch_dtype(self) -> Any:
        import torch

        return getattr(torch, "float32" if self.dtype == "auto" else self.dtype)

    def _rows_per_batch(self, backbone: Backbone) -> int:
        if self.batch_size != "auto":
            return int(self.batch_size)
        return 32 if backbone.device.type == "cpu" else 128

    def _progress(self, n_rows: int) -> Any:
        from tqdm.auto import tqdm

        name = f"{self._modality} features"
        return tqdm(total=n_rows, desc=name, unit="row", disable=not self.verbose)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.transformer_tags.preserves_dtype = []
        return tags


def _is_scalar(value: Any) -> bool:
    return np.ndim(value) == 0


def _usable_device(name: str | None) -> str:
    """Return the device asked for, or the best one there is."""
    import torch

    if name is None:
        return _best_device()
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        # A model fitted on a GPU has to predict where there is none.
        known = name.partition(":")[0] in ("cuda", "mps", "xpu")
        if not known:
            raise ValueError(
                f"device={name!r} is no torch device; use 'cpu', 'cuda', 'mps' or None."
            ) from error
        best = _best_device()
        warnings.warn(
            f"device={name!r} is not available here; {best!r} is used instead.",
            UserWarning,
            stacklevel=4,
        )
        return best
    return name


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
