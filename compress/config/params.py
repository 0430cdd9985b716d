"""params.yaml as a whole, with what says where it runs and what it must reach."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from compress.config.quantize import QuantizeConfig
from compress.config.rows import DataConfig, ModelConfig
from compress.config.section import Positive, Section
from compress.config.training import (
    DepthConfig,
    NoiseBlocks,
    NoiseConfig,
    PretrainConfig,
    TrainingConfig,
)
from compress.redaction import holds_password


class GateConfig(Section):
    """What a compressed model must reach to become champion: points of score, times smaller."""

    max_drop: float = 3.0
    min_ratio: float = 18.0


class TrackingConfig(Section):
    """MLflow. `uri: null` is MLFLOW_TRACKING_URI where that is set, else the embedded SQLite store
    in .shrinkflow/mlflow."""

    uri: str | None = None
    experiment: str = "shrinkflow"
    model_name: str = "shrinkflow-model"

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri and holds_password(uri):
            raise ValueError(
                "a password does not belong into this file: give it in the environment, as "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD "
                "for PostgreSQL; or leave `uri` out and set MLFLOW_TRACKING_URI"
            )
        return uri


class ComputeConfig(Section):
    """Where the work is done: no stage and no key depends on it.

    `address` is that of a Dask scheduler, else DASK_SCHEDULER_ADDRESS; `resources` is what a task
    takes of a worker's; `store` a folder or fsspec URL that all machines reach. `processes` train
    together on this machine, a GPU each, and share every batch.
    """

    runner: Literal["threads", "dask"] = "threads"
    address: str | None = None
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    store: str | None = None
    processes: Positive = 1

    @field_validator("store")
    @classmethod
    def _same_everywhere(cls, store: str | None) -> str | None:
        if store and "://" not in store and not Path(store).is_absolute():
            raise ValueError("`store` must be an absolute folder or a URL (s3://bucket/folder)")
        if store and holds_password(store):
            raise ValueError(
                "a password does not belong into this file: give it in the environment"
            )
        return store


class Params(Section):
    """The whole of params.yaml."""

    model: ModelConfig
    data: DataConfig
    pretrain: PretrainConfig
    finetune: TrainingConfig = TrainingConfig()
    noise: NoiseConfig = NoiseConfig()
    depth: DepthConfig = DepthConfig()
    quantize: QuantizeConfig
    gate: GateConfig = GateConfig()
    tracking: TrackingConfig = TrackingConfig()
    compute: ComputeConfig = ComputeConfig()
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0

    @model_validator(mode="after")
    def _batches_divide(self) -> "Params":
        processes = self.compute.processes
        recoveries = {
            f"quantize.groups.{group.name}.finetune"
            if group.finetune
            else "quantize.finetune": self.quantize.recovery(group.name)
            for group in self.quantize.groups
        }
        sections = {"pretrain": self.pretrain, "finetune": self.finetune, **recoveries}
        for name, section in sections.items():
            if section.batch_size % processes:
                raise ValueError(
                    f"{name}.batch_size {section.batch_size} does not divide among "
                    f"compute.processes {processes}"
                )
        return self

    def noise_settings(self) -> NoiseBlocks:
        """The blocks of Quant-Noise: of `noise`, else of `quantize` if its method has blocks."""
        known = self.quantize.method_settings | self.noise.model_dump(exclude_none=True)
        return NoiseBlocks(
            **{name: known[name] for name in NoiseBlocks.model_fields & known.keys()}
        )
