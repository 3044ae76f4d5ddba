"""The base that the image and the text transformer share."""

from __future__ import annotations

import numbers
import os
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_difffeat.extraction._plan import (
    Plan,
    resolve_blocks,
    resolve_timesteps,
    without_repeats,
)
from sklearn_difffeat.inputs._column import Column
from sklearn_difffeat.inputs._reader import Reader
from sklearn_difffeat.modalities._array import ModalityArray

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import BackboneInfo
    from sklearn_difffeat.checkpoints._source import Source
    from sklearn_difffeat.extraction._job import Job, Rows
    from sklearn_difffeat.store._rows import StoredRows


class DiffusionFeatureTransformer(TransformerMixin, BaseEstimator):
    """Base of the transformers that read features from a frozen diffusion model.

    Subclasses define what a cell is and how a batch of cells becomes features. Fitting,
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
    _reader_class: ClassVar[type[Reader]]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, os.PathLike],
        "revision": [str, None],
        "norm": [StrOptions({"auto", "l2"}), None],
        "n_draws": [Interval(numbers.Integral, 1, None, closed="left")],
        "batch_size": [
            StrOptions({"auto"}),
            Interval(numbers.Integral, 1, None, closed="left"),
        ],
        "cache": ["boolean", str, os.PathLike, None],
        "device": [str, None],
        "dtype": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "n_jobs": [numbers.Integral, None],
        "local_files_only": ["boolean"],
        "trust_remote_code": ["boolean"],
        "missing": [StrOptions({"error", "nan"})],
        "unreadable": [StrOptions({"error", "nan"})],
        "random_state": [Interval(numbers.Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _check_input_size(
        self, info: BackboneInfo, poolings: Sequence[str | tuple[str, int]]
    ) -> None:
        """Raise ValueError when the backbone cannot take the input size asked for."""

    @abstractmethod
    def _check_pooling(self, pooling: Any) -> str | tuple[str, int]:
        """Return one validated pooling."""

    @abstractmethod
    def _reader(self, info: BackboneInfo) -> Reader:
        """Return what turns cells into model inputs."""

    def _warn_truncated(
        self, n_truncated: int, n_rows: int, info: BackboneInfo
    ) -> None:
        """Warn, once, of inputs that were changed: texts cut, pictures black."""

    def _warn_of_cells(self, column: Column, info: BackboneInfo) -> None:
        """Warn, once, of what the cells themselves show, stored or not."""
        return

    def fit(self, X: Any, y: Any = None) -> DiffusionFeatureTransformer:
        """Validate the parameters and the cells, and determine the output's size.

        No weights are loaded and no features are computed. The files of a folder are
        read once per process, for the fingerprint.

        Parameters
        ----------
        X : column of cells
            List, tuple, 1-D object array, pandas or polars Series, pyarrow or
            ``datasets`` column, or one-column DataFrame or table, of n_rows cells; for
            images also an array of shape (n_rows, height, width, channels).
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
        self._validate_params()
        self._column(X)
        _, info = self._locate(self._hub_options())
        plan = self._plan_for(info, self.block, self.timestep)
        self.n_blocks_ = info.n_blocks
        self.n_timesteps_ = info.n_timesteps
        self.backbone_fingerprint_ = info.fingerprint
        self.block_ = _as_given(self._or_auto("block", info), plan.blocks)
        self.timestep_ = _as_given(self._or_auto("timestep", info), plan.timesteps)
        self.pooling_ = _as_given(self._or_auto("pooling", info), plan.poolings)
        self.norm_ = plan.norm
        self.n_features_out_ = plan.n_features(info.width_of)
        self.revision_ = info.revision
        self._plan, self._info = plan, info
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
            A row depends only on its cell and the parameters. With ``missing="nan"``
            the rows of missing cells are NaN, with ``unreadable="nan"`` those of cells
            that cannot be read; no other value is NaN.

        Raises
        ------
        ValueError
            When a cell cannot be read, or the model's values for it are not finite,
            naming its row; or when the backbone found is not the one fitted with.
        TypeError
            When X or a cell is of a kind not accepted.
        FileNotFoundError
            When a path leads to no file, naming its row.
        OSError
            When weights are not on this machine and the hub cannot be reached.
        MemoryError
            When the weights, or a single row, do not fit into memory.
        NotFittedError
            Before ``fit``.
        """
        from sklearn_difffeat.extraction._extract import extract

        check_is_fitted(self)
        column = self._column(X)
        options = self._hub_options() | {"revision": self.revision_}
        source, info = self._locate(options)
        if info.fingerprint != self.backbone_fingerprint_:
            raise ValueError(
                f"backbone={self.backbone!r} is not the one this transformer was "
                f"fitted with (found {info.fingerprint}, fitted with "
                f"{self.backbone_fingerprint_}); restore that backbone or fit again."
            )
        everything = range(info.n_blocks + 1)
        blocks = everything if self.cache else self._plan.blocks
        job, store = self._job(column, source, info, self._plan, blocks)
        features = np.empty((len(column.cells), self.n_features_out_), np.float32)
        rows = extract(job, column, store, features, self.n_jobs, self._progress())
        self._warn(column, rows, job, info)
        return ModalityArray.wrap(features, modality=self._modality)

    def precompute(
        self, X: Any, *, blocks: Any = None, timesteps: Any = None
    ) -> DiffusionFeatureTransformer:
        """Fill the cache ahead of a search; no fit is needed.

        Each row passes the model once for every timestep and draw. If the call is
        interrupted, what it has computed is kept, and the same call continues from
        there.

        Parameters
        ----------
        X : column of cells
            As in :meth:`fit`.
        blocks : int, str or list of them, default=None
            A pass stops at the deepest of these and keeps all blocks up to it; None
            keeps every block of the backbone.
        timesteps : int, str or list of them, default=None
            None takes the parameter ``timestep``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When there is no ``cache`` to fill, or a parameter or cell is not valid.

        Examples
        --------
        >>> from sklearn_difffeat import TextDiffusionFeatureTransformer
        >>> transformer = TextDiffusionFeatureTransformer(cache=True)
        >>> texts = ["a red apple", "two birds"]
        >>> _ = transformer.precompute(texts, timesteps=[0, 100])
        """
        from sklearn_difffeat.extraction._extract import extract

        self._validate_params()
        if not self.cache:
            raise ValueError(
                f"cache={self.cache!r} names no cache to fill; set True or a path."
            )
        column = self._column(X)
        source, info = self._locate(self._hub_options())
        plan = self._plan_for(
            info,
            info.n_blocks if blocks is None else blocks,
            self.timestep if timesteps is None else timesteps,
        )
        kept = range(max(plan.blocks) + 1)
        job, store = self._job(column, source, info, plan, kept)
        rows = extract(job, column, store, None, self.n_jobs, self._progress())
        self._warn(column, rows, job, info)
        return self

    def _column(self, X: Any) -> Column:
        return Column.of(
            X, self._reader_class, missing=self.missing, unreadable=self.unreadable
        )

    def _job(
        self,
        column: Column,
        source: Source,
        info: BackboneInfo,
        plan: Plan,
        blocks: Sequence[int],
    ) -> tuple[Job, StoredRows | None]:
        from sklearn_difffeat.extraction._devices import native_dtype, usable_device
        from sklearn_difffeat.extraction._job import Job
        from sklearn_difffeat.store._store import store_for

        if self.unreadable == "error":
            column.check_files(self._reader_class)
        device = usable_device(self.device)
        dtype = self.dtype
        if dtype == "auto":
            exact = self._reader_class.pads
            dtype = "float32" if exact else native_dtype(device)
        job = Job(
            source=source,
            fingerprint=info.fingerprint,
            device=device,
            dtype=dtype,
            reader=self._reader(info),
            plan=plan,
            blocks=tuple(blocks),
            widths=tuple(map(info.width_of, plan.blocks)),
            batch_size=None if self.batch_size == "auto" else int(self.batch_size),
            unreadable=self.unreadable,
        )
        return job, store_for(self.cache) if len(column.present) else None

    def _warn(self, column: Column, rows: Rows, job: Job, info: BackboneInfo) -> None:
        """Warn about the rows, once for each kind of problem."""
        n_rows = column.n_held
        if n_truncated := int(rows.truncated.sum()):
            self._warn_truncated(n_truncated, n_rows, info)
        if n_overflowed := int(rows.overflowed.sum()):
            warnings.warn(
                f"{n_overflowed} of {n_rows} rows exceed the range of {job.dtype} and "
                "were computed again in float32; dtype='float32' or 'bfloat16' avoids "
                "the second pass.",
                UserWarning,
                stacklevel=3,
            )
        self._warn_of_cells(column, info)
        if errors := column.errors | rows.errors:
            first = sorted(errors)
            more = ", ..." if len(first) > 5 else ""
            warnings.warn(
                f"{len(errors)} of {n_rows} {self._modality}s could not be read and "
                f"became rows of NaN: rows {', '.join(map(str, first[:5]))}{more} of X "
                f"(the first: {errors[first[0]]}).",
                UserWarning,
                stacklevel=3,
            )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return ``b{block}_t{timestep}_{i}`` for every column.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (n_features,), object

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        names = self._plan.feature_names(self._info.width_of)
        return np.asarray(names, dtype=object)

    def _locate(self, options: dict[str, Any]) -> tuple[Source, BackboneInfo]:
        from sklearn_difffeat.backbones import locate_backbone

        source, info = locate_backbone(self.backbone, **options)
        if info.modality != self._modality:
            raise ValueError(
                f"backbone={info.name!r} is a model of {info.modality}s, not of "
                f"{self._modality}s; use the transformer for {info.modality}s."
            )
        return source, info

    def _plan_for(self, info: BackboneInfo, block: Any, timestep: Any) -> Plan:
        pooling = self._or_auto("pooling", info)
        poolings = tuple(map(self._check_pooling, _as_list_of_poolings(pooling)))
        self._check_input_size(info, poolings)
        if _is_auto(block):
            block = info.reading.block
        if _is_auto(timestep):
            timestep = info.reading.timestep
        return Plan(
            blocks=resolve_blocks(block, info.n_blocks, info.name),
            timesteps=resolve_timesteps(timestep, info.n_timesteps, info.name),
            poolings=without_repeats("pooling", pooling, poolings),
            n_draws=int(self.n_draws),
            seed=int(self.random_state),
            norm=self._or_auto("norm", info),
        )

    def _or_auto(self, name: str, info: BackboneInfo) -> Any:
        """Return a parameter, or what is recommended for the backbone."""
        value = getattr(self, name)
        return getattr(info.reading, name) if _is_auto(value) else value

    def _hub_options(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "local_files_only": self.local_files_only,
            "trust_remote_code": self.trust_remote_code,
        }

    def _progress(self) -> Any:
        from tqdm.auto import tqdm

        name = f"{self._modality} features"
        return partial(tqdm, desc=name, unit="row", disable=not self.verbose)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.transformer_tags.preserves_dtype = []
        return tags


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _as_given(value: Any, found: tuple[Any, ...]) -> Any:
    """Return one value if one was given, and a list if a list was given."""
    is_one = isinstance(value, (str, numbers.Integral)) or _is_grid(value)
    return found[0] if is_one else list(found)


def _is_grid(pooling: Any) -> bool:
    is_pair = isinstance(pooling, (tuple, list)) and len(pooling) == 2
    return is_pair and pooling[0] == "grid" and not isinstance(pooling[1], (str, tuple))


def _as_list_of_poolings(pooling: Any) -> list[Any]:
    if not isinstance(pooling, (list, tuple)) or _is_grid(pooling):
        return [pooling]
    if not pooling:
        raise ValueError(f"pooling={pooling!r} is an empty list; name at least one.")
    return list(pooling)
