"""Where the network and the rows of text come from: the sections `model` and `data`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compress.config.section import Positive, Section
from compress.task_kinds import DEFAULT, KINDS, TaskKind


class ModelConfig(Section):
    """The network: a hub id, a local folder, or `package:module/path` inside a Python package."""

    source: str
    revision: str | None = None


class TextConfig(Section):
    """Rows of text: a hub data set (`glue/sst2`), a parquet/csv file, a folder of parquet files,
    or `package:module/path`."""

    source: str
    text: Annotated[list[str], Field(min_length=1, max_length=2)] = Field(default=["text"])
    where: dict[str, str | int] = Field(default_factory=dict)
    train: str = "train"
    max_rows: Positive | None = None
    max_length: Annotated[int, Field(ge=8)] = 128


class DataConfig(TextConfig):
    """The task. Held-out rows come from the split `validation` or, where the source has one split
    only, from the `holdout` rows of smallest SHA-256 of their text (fixed, whatever the order).

    `metric` is one of the task's, its first where none is given; where rows have no class, `label`
    is not read.
    """

    task: Literal["text-classification", "causal-lm"] = "text-classification"
    label: str = "label"
    validation: str | None = None
    holdout: Positive | None = None
    max_validation_rows: Positive | None = None
    metric: Literal["accuracy", "f1", "matthews_correlation", "perplexity"] = "accuracy"

    @property
    def kind(self) -> TaskKind:
        """All in which the task differs from others."""
        return KINDS[self.task]

    @model_validator(mode="before")
    @classmethod
    def _metric_of_the_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("metric") is None:
            kind = KINDS.get(str(values.get("task", DEFAULT)), KINDS[DEFAULT])
            return values | {"metric": kind.metrics[0]}
        return values

    @model_validator(mode="after")
    def _fits_the_task(self) -> "DataConfig":
        if self.metric not in self.kind.metrics:
            known = ", ".join(self.kind.metrics)
            raise ValueError(f"{self.task} is not scored by {self.metric}, but by {known}")
        if not self.kind.classes and len(self.text) > 1:
            raise ValueError(f"{self.task} takes one column of `text`")
        return self

    @model_validator(mode="after")
    def _one_held_out(self) -> "DataConfig":
        if (self.validation is None) == (self.holdout is None):
            raise ValueError("give either `validation` (a split) or `holdout` (a number of rows)")
        return self
