"""How networks are trained: `pretrain`, `finetune`, `noise`, `depth`, recovery after a group."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compress.config.rows import TextConfig
from compress.config.section import Positive, Rate, Section

NoiseFunction = Literal["none", "zero", "mean", "codebook", "int8", "int4"]


class TrainingConfig(Section):
    """Optimizer settings, in the terms of Hugging Face's TrainingArguments.

    bf16 `auto`: mixed precision where processor or GPU computes bfloat16 itself.
    """

    epochs: Annotated[float, Field(gt=0)] = 2.0
    max_steps: Positive | None = None
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_fraction: Rate = 0.06
    checkpoint_steps: Positive = 50
    bf16: bool | Literal["auto"] = "auto"


class PretrainConfig(TrainingConfig):
    """Continued language-model training with Quant-Noise (masked-LM, of decoders causal-LM); no
    step is `enabled: false`."""

    enabled: bool = True
    data: TextConfig
    mlm_probability: Annotated[float, Field(gt=0, lt=1)] = 0.15


class NoiseConfig(Section):
    """Quant-Noise (Fan et al. 2020): the share of blocks that is noised in each forward pass. It
    grows evenly from 0 to `rate` in the first `warmup_fraction` of the steps.

    Its blocks are its own, else those of `quantize`, never those of a group: another block size of
    one group leaves the training, and with it the layers of the other groups, as they were.
    """

    function: NoiseFunction = "codebook"
    rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    block_size: Positive | None = None
    codebook_size: Annotated[int, Field(ge=2, le=65536)] | None = None
    refresh_steps: Positive = 50
    layerdrop: Rate = 0.0


class NoiseBlocks(Section):
    """The blocks and codebooks of Quant-Noise, the same for every layer that has noise."""

    block_size: Positive = 8
    codebook_size: Annotated[int, Field(ge=2, le=65536)] = 256


class DepthConfig(Section):
    """Fewer layers (Fan et al. 2020, "Share" and "Prune"): `share` adjacent ones have one set of
    weights while training and after; of every `prune` such chunks the quantized model has one."""

    share: Positive = 1
    prune: Positive = 1


class RecoveryConfig(TrainingConfig):
    """Finetuning of centroids and rest after each group, with the uncompressed model as teacher.

    Every `reassign_steps` steps each block of the group chooses its centroid anew; 0: never. With
    `patience`, `validation_rows` of the training data are kept aside: the loss on them is measured
    at every checkpoint, so many without a better one end the training, and the best is taken.
    In half of the rows a share of `augment` of the tokens is replaced by others of the data.
    """

    centroid_learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    reassign_steps: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    patience: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    validation_rows: Positive = 512
    temperature: Annotated[float, Field(gt=0)] = 2.0
    logits_weight: Annotated[float, Field(ge=0)] = 1.0
    hidden_weight: Annotated[float, Field(ge=0)] = 1.0
    label_weight: Annotated[float, Field(ge=0)] = 0.0
    augment: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _labels_are_of_their_texts(self) -> Self:
        if self.augment and self.label_weight:
            raise ValueError(
                "a label does not fit a text with other words; give either `augment` or "
                "`label_weight`"
            )
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not (self.logits_weight or self.hidden_weight or self.label_weight):
            raise ValueError(
                "there is nothing to learn from; give `logits_weight`, `hidden_weight` or "
                "`label_weight` more than 0"
            )
        return self
