"""Tokenized rows: a parquet file written by `prepare` as a torch data set."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from torch.utils.data import Dataset

from compress.errors import InputError


class Rows(Dataset[dict[str, Any]]):
    """Rows as dictionaries of lists (`input_ids`, ...) and numbers (`labels`), all in memory."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError(f"{path}: not there; run the stage `prepare` first")
        table = pq.read_table(path)
        if "label" in table.column_names:
            table = table.rename_columns({"label": "labels"})
        self._rows = table.to_pylist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._rows[index])
