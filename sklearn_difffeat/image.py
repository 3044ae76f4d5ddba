"""Images to diffusion features."""

from __future__ import annotations

import numbers
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.utils._param_validation import Interval

from sklearn_difffeat._transformer import DiffusionFeatureTransformer
from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.inputs._image_reader import ImageReader

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import BackboneInfo


class ImageDiffusionFeatureTransformer(DiffusionFeatureTransformer):
    """Turn images into the hidden states of a frozen diffusion model.

    A latent model first encodes the picture by the mode of its VAE. Then a fixed noise
    is added for the timestep, the model runs without class and with an empty prompt,
    and the tokens of the chosen block are pooled. Diff-Feat [1]_ finds the most
    discriminative features at a middle block and a middle timestep.

    Parameters
    ----------
    backbone : str or path, default="dit-tiny"
        Embedded name, hub id, or folder in the hub's layout.
    revision : str, default=None
        Hub revision.
    block : "auto", int, {"middle", "last"} or list of them, default="auto"
        0 is the token embeddings (of "dit-tiny", its encoder's map), k the output of
        the k-th block; negative numbers count from the end; a list concatenates. "auto"
        is what is recommended for the backbone, as :func:`describe_backbone` shows with
        its source, or else the middle.
    timestep : "auto", int, "middle" or list of them, default="auto"
        0 is the clean input with t = 0; t >= 1 is the scheduler's training index; a
        list concatenates. "auto" as for the block.
    pooling : "auto", "mean", "max", ("grid", k) or list of them, default="auto"
        Over all tokens, or the mean in each of k x k cells of the picture; a list
        concatenates, from one pass. "auto" as for the block, or else "mean".
    norm : {"auto", "l2"} or None, default="auto"
        "l2" scales each pooled vector of a block and timestep to unit length, so that
        only its direction counts. "auto" as for the block, or else None.
    n_draws : int, default=1
        Number of noise draws to average.
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
        Precision of the model; "auto" is bfloat16 where the device computes in it
        natively and float32 elsewhere.
    n_jobs : int, default=None
        joblib jobs over chunks of rows, through the active joblib backend.
    image_size : int, default=None
        Side in pixels to which pictures are resized; None is the backbone's own.
    prompt : str, default=""
        Text that a text-conditioned model gets with every picture. It is encoded once;
        the text encoders are not kept in memory.
    missing : {"error", "nan"}, default="error"
        Whether a missing cell (None, NaN, pd.NA, ``{"bytes": None, "path": None}``) is
        an error or a row of NaN.
    unreadable : {"error", "nan"}, default="error"
        Whether a cell that cannot be read or decoded (no such file, a damaged picture)
        is an error or a row of NaN; one warning then counts the rows.
    local_files_only, trust_remote_code : bool, default=False
        Passed to the hub; code of a checkpoint runs only with `trust_remote_code`.
    random_state : int, default=0
        Seeds the noise, which is the same for every row.
    verbose : bool, default=False
        Show a progress bar with rows per second.

    Attributes
    ----------
    block_, timestep_ : int or list of int
        Blocks and timesteps in use, as numbers.
    pooling_ : str, tuple or list of them
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
    TextDiffusionFeatureTransformer : The same for texts.

    Notes
    -----
    A cell is a path, bytes, a PIL image, a (height, width, channels) array, or the
    ``{"bytes", "path"}`` dict of parquet image columns; X may also be one (rows,
    height, width, channels) array. Files are of the raster formats that Pillow reads;
    formats that are programs, such as EPS, are refused. The EXIF orientation is
    applied, transparency put on white, the first frame of an animation taken, and the
    whole picture resized to the square.

    The dtype of an array determines its range: bool is black and white, uint16 runs
    from 0 to 65535, floats from 0 to 1, other integers, as in PIL's mode "I", from 0 to
    255. Values outside are an error. One warning counts the pictures that come out
    black because their values fill only the start of the range, such as masks of 0 and
    1.

    References
    ----------
    .. [1] Lan, Zheng and Yin, "Diff-Feat", arXiv:2509.15553, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat import ImageDiffusionFeatureTransformer
    >>> pictures = np.random.default_rng(0).integers(
    ...     0, 256, size=(3, 64, 64, 3), dtype=np.uint8)
    >>> transformer = ImageDiffusionFeatureTransformer(block=3, timestep=50)
    >>> transformer.fit_transform(pictures).shape
    (3, 384)
    """

    _modality = "image"
    _reader_class = ImageReader

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DiffusionFeatureTransformer._parameter_constraints,
        "image_size": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "prompt": [str],
    }

    def __init__(
        self,
        backbone: str | os.PathLike[str] = "dit-tiny",
        *,
        revision: str | None = None,
        block: int | str | Sequence[int | str] = "auto",
        timestep: int | str | Sequence[int | str] = "auto",
        pooling: str | tuple[str, int] | Sequence[str | tuple[str, int]] = "auto",
        norm: str | None = "auto",
        n_draws: int = 1,
        cache: bool | str | os.PathLike[str] | None = None,
        batch_size: int | str = "auto",
        device: str | None = None,
        dtype: str = "auto",
        n_jobs: int | None = None,
        image_size: int | None = None,
        prompt: str = "",
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
        self.image_size = image_size
        self.prompt = prompt
        self.missing = missing
        self.unreadable = unreadable
        self.local_files_only = local_files_only
        self.trust_remote_code = trust_remote_code
        self.random_state = random_state
        self.verbose = verbose

    def _check_input_size(
        self, info: BackboneInfo, poolings: Sequence[str | tuple[str, int]]
    ) -> None:
        size, step, n_tokens = self.image_size, info.input_step, info.tokens_per_step
        if size is not None and size % step:
            tokens = "a token" if n_tokens == 1 else f"{n_tokens} tokens"
            raise ValueError(
                f"image_size={size} is not a multiple of {step}, the side in pixels of "
                f"{tokens} of backbone {info.name!r}; choose one that is."
            )
        largest = info.max_input_size
        if size is not None and largest is not None and size > largest:
            raise ValueError(
                f"image_size={size} exceeds the {largest} pixels that the positions of "
                f"backbone {info.name!r} reach; choose at most that."
            )
        side = (size or info.input_size) // step * n_tokens
        if (
            max((one[1] for one in poolings if isinstance(one, tuple)), default=0)
            > side
        ):
            raise ValueError(
                f"pooling={self.pooling!r} asks for more cells than the {side} x "
                f"{side} tokens of a picture; choose at most {side}."
            )

    def _check_pooling(self, pooling: Any) -> str | tuple[str, int]:
        if isinstance(pooling, str) and pooling in ("mean", "max"):
            return pooling
        is_grid = isinstance(pooling, (tuple, list)) and len(pooling) == 2
        if is_grid and pooling[0] == "grid":
            cells = pooling[1]
            is_integer = isinstance(cells, numbers.Integral)
            if is_integer and not isinstance(cells, bool) and int(cells) >= 1:
                return "grid", int(cells)
        raise ValueError(
            f"pooling={pooling!r} is unknown; use 'auto', 'mean', 'max', ('grid', k) "
            "with an integer k >= 1, or a list of them."
        )

    def _plan_for(self, info: BackboneInfo, block: Any, timestep: Any) -> Plan:
        if self.prompt and not info.takes_prompt:
            raise ValueError(
                f"prompt={self.prompt!r} is given, but backbone {info.name!r} is not "
                "conditioned on a text; leave the prompt empty."
            )
        plan = super()._plan_for(info, block, timestep)
        return replace(plan, prompt=self.prompt)

    def _reader(self, info: BackboneInfo) -> ImageReader:
        return ImageReader(self.image_size or info.input_size)

    def _warn_truncated(
        self, n_truncated: int, n_rows: int, info: BackboneInfo
    ) -> None:
        warnings.warn(
            f"{n_truncated} of {n_rows} pictures come out black: their values reach "
            "only the start of their dtype's range (uint8 runs to 255, uint16 to "
            "65535, floats to 1); scale them to all of it.",
            UserWarning,
            stacklevel=4,
        )
