"""Tokenized rows: a parquet file written by `prepare` as a torch data set."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from torch import Tensor
from torch.utils.data import Dataset, Subset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

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


def keep_aside(rows: Rows, count: int) -> tuple[Dataset[Any], Dataset[Any]]:
    """The others and `count` rows, evenly spaced; at most half of them."""
    count = min(count, len(rows) // 2)
    aside = [i * len(rows) // count for i in range(count)]
    chosen = set(aside)
    others = [i for i in range(len(rows)) if i not in chosen]
    return Subset(rows, others), Subset(rows, aside)


def batches(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, count: int, size: int
) -> list[dict[str, Tensor]]:
    """At most `count` rows, evenly spaced over all of them, padded in batches of `size`."""
    collate = DataCollatorWithPadding(tokenizer)
    count = min(len(rows), count)
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    return [collate(chosen[start : start + size]) for start in range(0, count, size)]
