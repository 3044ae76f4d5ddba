"""A column of cells, checked once: which rows hold something that can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_difffeat.inputs._cells import Cells, as_cells, find_missing, in_row
from sklearn_difffeat.inputs._reader import Reader


@dataclass(frozen=True)
class Column:
    """The cells of X, checked once: which hold something that can be read.

    Attributes
    ----------
    cells : sequence or ndarray
    n_held : int
        Rows whose cell is not missing.
    present : ndarray of int
        The rows to read.
    errors : dict of int to Exception
        Why other rows cannot be read, although their cells are not missing.
    """

    cells: Cells
    n_held: int
    present: np.ndarray
    errors: dict[int, Exception]

    @classmethod
    def of(
        cls, X: Any, reader: type[Reader], *, missing: str, unreadable: str
    ) -> Column:
        """Look at every cell; no file is read.

        Raises
        ------
        TypeError
            When X or a cell is of a kind not accepted, naming the row.
        ValueError
            When X is empty, or a cell is missing or broken and that is an error.
        """
        cells = as_cells(X, arrays=reader.takes_arrays)
        absent = find_missing(cells)
        if absent.any() and missing == "error":
            rows = np.flatnonzero(absent)
            raise ValueError(
                f"row {rows[0]} of X: the cell is missing ({cells[rows[0]]!r}), as in "
                f"{len(rows)} of {len(cells)} rows; drop them, or set missing='nan'."
            )
        held = np.flatnonzero(~absent)
        errors: dict[int, Exception] = {}
        if not reader.are_plainly_good(cells):
            for row in held.tolist():
                try:
                    reader.check_cell(cells[row])
                except (TypeError, ValueError) as error:
                    errors[row] = in_row(error, row)
                    if unreadable == "error" or isinstance(error, TypeError):
                        raise errors[row] from error
        present = np.setdiff1d(held, list(errors)) if errors else held
        return cls(cells, len(held), present, errors)

    def check_files(self, reader: type[Reader]) -> None:
        """Raise OSError, naming the row, when a cell names a file that is not there.

        So a missing file is an error before hours of passes, not after them. A lazy
        sequence is not checked.
        """
        may_name_files = reader.check_file is not Reader.check_file
        if may_name_files and isinstance(self.cells, (list, tuple)):
            for row in self.present.tolist():
                try:
                    reader.check_file(self.cells[row])
                except (OSError, ValueError) as error:
                    raise in_row(error, row) from error
