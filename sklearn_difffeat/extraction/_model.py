"""The backbone at work: batches of rows in, the results of their passes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sklearn_difffeat.backbones._base import Backbone
from sklearn_difffeat.checkpoints._memory import release_device_memory
from sklearn_difffeat.extraction._batches import Batch, BatchSizer, is_out_of_memory
from sklearn_difffeat.extraction._forward import encode, forward
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.inputs._reader import Prepared
from sklearn_difffeat.store._chunk import Chunk, Pass
from sklearn_difffeat.store._rows import StoredRows

# Called with the results: the rows, the column of the pass, and its values.
Receive = Callable[[np.ndarray, int, Chunk], None]


class Model:
    """A job's model, loaded when the first batch needs it.

    Parameters
    ----------
    job : Job
    rows : Rows
        Updated as passes are computed.
    passes : list of Pass
    store : StoredRows or None
        Keeps the latents of pictures.
    receive : callable
        Called with what was computed.
    """

    def __init__(
        self,
        job: Job,
        rows: Rows,
        passes: list[Pass],
        store: StoredRows | None,
        receive: Receive,
    ) -> None:
        self.job, self.rows, self.passes = job, rows, passes
        self.store, self.receive = store, receive
        self._backbone: Backbone | None = None
        self._sizer: BatchSizer | None = None

    @property
    def backbone(self) -> Backbone:
        """The model; a call that finds everything in the store loads none."""
        # Not a cached_property: before Python 3.12 all instances share its lock, and if
        # another thread holds the lock at a fork, it is never released.
        if self._backbone is None:
            self._backbone = self.job.backbone()
        return self._backbone

    @property
    def sizer(self) -> BatchSizer:
        """How many rows the model takes at a time."""
        if self._sizer is None:
            self._sizer = self.job.sizer(self.backbone)
        return self._sizer

    @property
    def latents(self) -> Pass | None:
        """Where the latents of pictures are kept, if they are worth it."""
        if self.store is None or not self.backbone.has_encoder:
            return None
        return self.job.latents

    def batch_size(self, batch: Batch) -> int:
        """Return how many rows like the first of a batch the model takes."""
        (cell,) = self.rows.cells_of(batch.rows[:1])
        size = self.job.reader.size(cell)
        return self.sizer.rows(self.backbone.activation_bytes(size))

    def prepare(self, batch: Batch) -> Prepared:
        """Make model inputs from stored latents, from what was read, or from cells."""
        stored = None if batch.places is None else self._stored_latents(batch)
        if stored is not None:
            return stored
        reader = self.job.reader
        if batch.contents is not None:
            return reader.prepare(self.backbone, batch.contents)
        contents = reader.read(self.rows.cells_of(batch.rows))
        prepared = reader.prepare(self.backbone, contents)
        # Read for the second time: a file may have changed since it was looked up.
        self.rows.digests[batch.rows] = contents.digests
        return prepared

    def _stored_latents(self, batch: Batch) -> Prepared | None:
        places = batch.places
        assert self.store is not None and self.latents is not None
        assert places is not None
        found = None
        missing = len(places)
        for at, positions, values in self.store.read(places, [0]):
            if found is None:
                found = np.empty((len(places), values[0].shape[1]), np.float32)
            found[at] = values[0][positions]
            missing -= len(at)
        if found is None or missing:
            # Removed from a store of limited size since they were found.
            return None
        digests = self.rows.digests_of(batch.rows)
        _, truncated = self.store.find(self.latents, digests, 0)
        return Prepared(self.backbone.latents_of(found), truncated, encoded=True)

    def compute(self, batch: Batch, prepared: Prepared) -> None:
        """Run the passes that a batch needs; if memory runs out, in halves.

        Raises
        ------
        MemoryError
            When a single row does not fit.
        ValueError
            When a row's values are not finite, even in float32.
        """
        rows = batch.rows
        if prepared.errors:
            for at, error in prepared.errors.items():
                self.rows.give_up(int(rows[at]), error)
            readable = np.setdiff1d(np.arange(len(rows)), list(prepared.errors))
            rows, prepared = rows[readable], prepared[readable]
        parts = [slice(0, len(rows))] if len(rows) else []
        while parts:
            part = parts.pop()
            try:
                self._compute_part(rows[part], prepared[part])
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if part.stop - part.start == 1:
                    raise MemoryError(
                        f"row {self.rows.numbers[rows[part]][0]} of X does not fit in "
                        "memory by itself; choose a smaller backbone or input size, "
                        "or another device."
                    ) from error
            # Outside the handler: the traceback would keep the batch's tensors alive.
            self.sizer.ran_out_of_memory(part.stop - part.start)
            release_device_memory()
            middle = (part.start + part.stop) // 2
            parts += [slice(middle, part.stop), slice(part.start, middle)]

    def _compute_part(self, rows: np.ndarray, prepared: Prepared) -> None:
        plan, blocks = self.job.plan, self.job.blocks
        inputs = prepared.inputs
        if not prepared.encoded:
            inputs = self._encode(rows, prepared)
        for column, one in enumerate(self.passes):
            at = np.flatnonzero(self.rows.needed[rows, column])
            if not len(at):
                continue
            some = inputs if len(at) == len(rows) else inputs[at]
            values = forward(self.backbone, some, plan, one.timestep, one.draw, blocks)
            if len(wrong := rows_not_finite(values)):
                precise = self._precise(rows[at[wrong]])
                again = forward(
                    precise, some[wrong], plan, one.timestep, one.draw, blocks
                )
                self._replace(values, wrong, again, rows[at])
            self.receive(
                rows[at], column, self._chunk(one, rows[at], prepared[at], values)
            )
            self.rows.needed[rows[at], column] = False

    def _encode(self, rows: np.ndarray, prepared: Prepared) -> Any:
        """Turn inputs into clean inputs, before noise; keep latents that save work."""
        latents = encode(self.backbone, prepared.inputs)
        if not self.backbone.has_encoder:
            return latents
        flat = {0: latents.flatten(1).cpu().numpy()}
        if len(wrong := rows_not_finite(flat)):
            again = encode(self._precise(rows[wrong]), prepared.inputs[wrong])
            self._replace(flat, wrong, {0: again.flatten(1).cpu().numpy()}, rows)
            latents = torch.from_numpy(flat[0]).view(latents.shape).to(latents.device)
        if self.latents is not None and self.store is not None:
            self.store.put([self._chunk(self.latents, rows, prepared, flat)])
        return latents

    def _precise(self, rows: np.ndarray) -> Backbone:
        """Return the model in float32, for rows that overflowed before."""
        if self.job.dtype == "float32":
            raise self._not_finite(rows)
        self.rows.overflowed[rows] = True
        return self.job.backbone("float32")

    def _replace(
        self,
        values: dict[int, np.ndarray],
        wrong: np.ndarray,
        again: dict[int, np.ndarray],
        rows: np.ndarray,
    ) -> None:
        still = rows_not_finite(again)
        if len(still):
            raise self._not_finite(rows[wrong[still]])
        for block, precise in again.items():
            values[block] = values[block].copy()
            values[block][wrong] = precise

    def _not_finite(self, rows: np.ndarray) -> ValueError:
        numbers = self.rows.numbers[rows]
        return ValueError(
            f"row {numbers.min()} of X: backbone {self.job.source.name!r} gives values "
            f"that are not finite, even in float32 (as in {len(numbers)} rows of its "
            "batch); choose another block or timestep, or check the weights."
        )

    def _chunk(
        self,
        one: Pass,
        rows: np.ndarray,
        prepared: Prepared,
        values: dict[int, np.ndarray],
    ) -> Chunk:
        digests = self.rows.digests_of(rows)
        return Chunk(one, digests, prepared.truncated, values)


def rows_not_finite(values: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the rows that are not finite in some block."""
    finite = np.all([np.isfinite(v).all(axis=1) for v in values.values()], axis=0)
    return np.flatnonzero(~finite)
