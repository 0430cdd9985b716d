"""params.yaml as pydantic models: one class a section, unknown keys refused, defaults that work."""

from compress.config.codec import CodecConfig, codec_config
from compress.config.params import ComputeConfig, GateConfig, Params, TrackingConfig
from compress.config.quantize import BudgetConfig, GroupConfig, QuantizeConfig
from compress.config.rows import DataConfig, ModelConfig, TextConfig
from compress.config.section import Positive, Section
from compress.config.training import (
    DepthConfig,
    NoiseBlocks,
    NoiseConfig,
    PretrainConfig,
    RecoveryConfig,
    TrainingConfig,
)

__all__ = [
    "BudgetConfig",
    "CodecConfig",
    "ComputeConfig",
    "DataConfig",
    "DepthConfig",
    "GateConfig",
    "GroupConfig",
    "ModelConfig",
    "NoiseBlocks",
    "NoiseConfig",
    "Params",
    "Positive",
    "PretrainConfig",
    "QuantizeConfig",
    "RecoveryConfig",
    "Section",
    "TextConfig",
    "TrackingConfig",
    "TrainingConfig",
    "codec_config",
]
