"""Texts to diffusion features."""

from __future__ import annotations

import numbers
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.utils._param_validation import Interval

from sklearn_difffeat._transformer import DiffusionFeatureTransformer
from sklearn_difffeat.checkpoints._source import embedded_names
from sklearn_difffeat.inputs._text_reader import TextReader

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import BackboneInfo
    from sklearn_difffeat.inputs._column import Column


class TextDiffusionFeatureTransformer(DiffusionFeatureTransformer):
    """Turn texts into the hidden states of a frozen masked diffusion language model.

    At timestep t each token of a text is masked with probability t / ``n_timesteps_``.
    The mask depends on the text, and a token that is masked at t is masked at every
    later timestep. The model runs once for each timestep and draw, and the real tokens
    of the chosen block are pooled. Diff-Feat [1]_ finds the most discriminative text
    features without noise at the deepest block. Masked language models (BERT, RoBERTa,
    DistilBERT, ModernBERT) are masked diffusion models [2]_ that were trained at one
    masking rate.

    Parameters
    ----------
    backbone : str or path, default="mdlm-tiny"
        Embedded name, hub id, or folder in the hub's layout.
    revision : str, default=None
        Hub revision.
    block : "auto", int, {"middle", "last"} or list of them, default="auto"
        0 is the token embeddings, k the output of the k-th block; negative numbers
        count from the end; a list concatenates. "auto" is what is recommended for the
        backbone, as :func:`describe_backbone` shows with its source, or else the last.
    timestep : "auto", int, "middle" or list of them, default="auto"
        0 masks nothing; a list concatenates. "auto" as for the block, or else 0.
    pooling : "auto", {"mean", "max"} or list of them, default="auto"
        Over the real tokens; padding and special tokens are ignored. A list
        concatenates, from one pass. "auto" as for the block, or else "mean".
    norm : {"auto", "l2"} or None, default="auto"
        "l2" scales each pooled vector of a block and timestep to unit length, so that
        only its direction counts. "auto" as for the block, or else None.
    n_draws : int, default=1
        Number of draws of the mask to average.
    cache : bool, str, path or FeatureStore, default=None
        Store the features of each row, at all blocks, so that no row passes the model
        twice at the same timestep. True stores them in the memory of this process, a
        path in a file that other processes share. See :class:`FeatureStore`.
    batch_size : int or "auto", default="auto"
        Rows per batch. "auto" takes as many as fit into half of a GPU's free memory,
        or into 512 MB on a CPU, rounded down to a power of two and at most 128. A
        batch that runs out of memory is halved.
    device : str, default=None
        A torch device; None takes CUDA, then MPS, then the CPU.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of the model; "auto" is float32, because in half precision the padding
        of a batch changes the rounding of a row's features.
    n_jobs : int, default=None
        joblib jobs over chunks of rows, through the active joblib backend.
    max_length : int, default=None
        Largest number of tokens of a text, special ones included; None is the
        backbone's own. One warning counts the rows that were cut.
    missing : {"error", "nan"}, default="error"
        Whether a missing cell (None, NaN, pd.NA) is an error or a row of NaN.
    unreadable : {"error", "nan"}, default="error"
        Whether a text that is not valid Unicode is an error or a row of NaN; one
        warning then counts the rows.
    local_files_only, trust_remote_code : bool, default=False
        Passed to the hub; code of a checkpoint runs only with `trust_remote_code`.
    random_state : int, default=0
        Seeds the masks.
    verbose : bool, default=False
        Show a progress bar with rows per second.

    Attributes
    ----------
    block_, timestep_ : int or list of int
        Blocks and timesteps in use, as numbers.
    pooling_ : str or list of str
        The pooling in use, where "auto" is resolved.
    norm_ : str or None
        The norm in use, where "auto" is resolved.
    n_blocks_, n_timesteps_ : int
        Numbers of blocks and timesteps of the backbone.
    n_features_out_ : int
        Number of columns of the output.
    backbone_fingerprint_ : str
        Identifies configuration and weights; checked again in transform.
    revision_ : str or None
        The commit of a hub id; transform loads it even if the hub has a newer one.

    See Also
    --------
    ImageDiffusionFeatureTransformer : The same for images.

    References
    ----------
    .. [1] Lan, Zheng and Yin, "Diff-Feat", arXiv:2509.15553, 2025.
    .. [2] Sahoo et al., "Simple and Effective Masked Diffusion Language Models",
       arXiv:2406.07524, 2024.

    Examples
    --------
    >>> from sklearn_difffeat import TextDiffusionFeatureTransformer
    >>> transformer = TextDiffusionFeatureTransformer(block="last")
    >>> transformer.fit_transform(["a red apple", "two birds on a branch"]).shape
    (2, 384)
    """

    _modality = "text"
    _reader_class = TextReader

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DiffusionFeatureTransformer._parameter_constraints,
        "max_length": [Interval(numbers.Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        backbone: str | os.PathLike[str] = "mdlm-tiny",
        *,
        revision: str | None = None,
        block: int | str | Sequence[int | str] = "auto",
        timestep: int | str | Sequence[int | str] = "auto",
        pooling: str | Sequence[str] = "auto",
        norm: str | None = "auto",
        n_draws: int = 1,
        cache: bool | str | os.PathLike[str] | None = None,
        batch_size: int | str = "auto",
        device: str | None = None,
        dtype: str = "auto",
        n_jobs: int | None = None,
        max_length: int | None = None,
        missing: str = "error",
        unreadable: str = "error",
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.revision = revision
        self.block = block
        self.timestep = timestep
        self.pooling = pooling
        self.norm = norm
        self.n_draws = n_draws
        self.cache = cache
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.max_length = max_length
        self.missing = missing
        self.unreadable = unreadable
        self.local_files_only = local_files_only
        self.trust_remote_code = trust_remote_code
        self.random_state = random_state
        self.verbose = verbose

    def _check_input_size(
        self, info: BackboneInfo, poolings: Sequence[str | tuple[str, int]]
    ) -> None:
        if self.max_length is not None and self.max_length > info.input_size:
            raise ValueError(
                f"max_length={self.max_length} exceeds the {info.input_size} positions "
                f"of backbone {info.name!r}; choose at most that."
            )

    def _check_pooling(self, pooling: Any) -> str | tuple[str, int]:
        if not isinstance(pooling, str) or pooling not in ("mean", "max"):
            raise ValueError(
                f"pooling={pooling!r} is unknown; use 'auto', 'mean', 'max', or a list "
                "of them."
            )
        return pooling

    def _reader(self, info: BackboneInfo) -> TextReader:
        return TextReader(self.max_length or info.input_size)

    def _warn_truncated(
        self, n_truncated: int, n_rows: int, info: BackboneInfo
    ) -> None:
        longest = self.max_length or info.input_size
        warnings.warn(
            f"{n_truncated} of {n_rows} texts are longer than the {longest} tokens "
            "allowed and were cut; shorten them, raise max_length or choose a "
            "backbone with more positions.",
            UserWarning,
            stacklevel=4,
        )

    def _warn_of_cells(self, column: Column, info: BackboneInfo) -> None:
        if info.name not in embedded_names():
            return
        from sklearn_difffeat.backbones._unknown import count_unknown

        texts = [column.cells[row] for row in column.present.tolist()]
        if n_unknown := count_unknown(info.name, texts):
            warnings.warn(
                f"{n_unknown} of {column.n_held} texts are mostly unknown tokens to "
                f"{info.name}; try backbone='FacebookAI/xlm-roberta-base'.",
                UserWarning,
                stacklevel=4,
            )
