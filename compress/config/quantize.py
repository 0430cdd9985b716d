"""The section `quantize`: which layers are compressed, with what, and how small the file is."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from compress.config.codec import CodecConfig, codec_config, moved
from compress.config.section import Positive, Section
from compress.config.training import RecoveryConfig

Sensitivity = Literal["none", "activations", "fisher"]


class GroupConfig(Section):
    """Layers that are quantized together; every other key is a setting of the group's method.

    `finetune` has what differs in the recovery after this group from that of the section.
    In a pattern `*` stands for one part of a dotted name and `**` for any number of parts.
    """

    model_config = ConfigDict(extra="allow")
    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=60)]
    layers: Annotated[list[str], Field(min_length=1)]
    method: str | None = None
    sensitivity: Sensitivity | None = None
    finetune: dict[str, Any] = Field(default_factory=dict)


class BudgetConfig(Section):
    """The size of model.safetensors: decimal megabytes, or how much smaller than fp32 it is."""

    megabytes: Annotated[float, Field(gt=0)] | None = None
    ratio: Annotated[float, Field(gt=1)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "BudgetConfig":
        if (self.megabytes is None) == (self.ratio is None):
            raise ValueError("give either `megabytes` or `ratio`")
        return self


class QuantizeConfig(Section):
    """Group by group: compress the layers, then finetune the centroids and the rest.

    Every other key is a setting of `method`, for all groups that do not name another method; after
    validation all of them are there, defaults filled in. With a budget every layer gets the
    settings that do least damage within it; those written here are candidates among others.
    `sensitivity` is what squared errors are weighted by when a layer is compressed.
    """

    model_config = ConfigDict(extra="allow")
    method: str = "product"
    sensitivity: Sensitivity = "none"
    budget: BudgetConfig | None = None
    groups: Annotated[list[GroupConfig], Field(min_length=1)]
    finetune: RecoveryConfig = RecoveryConfig()
    rest: Literal["float16", "float32"] = "float16"
    workers: Positive = 2

    @property
    def method_settings(self) -> dict[str, Any]:
        """The settings of `method` that stand in the section itself."""
        assert self.model_extra is not None  # as extra keys are allowed
        return self.model_extra

    def settings(self, group: GroupConfig) -> CodecConfig:
        """What the layers of `group` are compressed with: its own keys, else those of the section
        (for the same method), else the method's defaults. Raises ValidationError."""
        method = group.method or self.method
        inherited = self.method_settings if method == self.method else {}
        return codec_config(method, inherited | (group.model_extra or {}))

    def recovery(self, group: str) -> RecoveryConfig:
        """How the named group is finetuned: what it says itself, else the section."""
        own = next(entry.finetune for entry in self.groups if entry.name == group)
        return RecoveryConfig.model_validate(self.finetune.model_dump() | own)

    def sensitivity_of(self, group: GroupConfig) -> Sensitivity:
        """What the errors of the layers of `group` are weighted by: its own, else the section's."""
        return group.sensitivity or self.sensitivity

    @model_validator(mode="after")
    def _settings_of_the_methods(self) -> Self:
        own = codec_config(self.method, self.method_settings)
        self.method_settings.update(own.model_dump(exclude={"method"}))
        problems: list[InitErrorDetails] = []
        for i, group in enumerate(self.groups):
            try:
                self.settings(group)
            except ValidationError as error:
                problems += moved(("groups", i), error)
            try:
                self.recovery(group.name)
            except ValidationError as error:
                problems += moved(("groups", i, "finetune"), error)
        if problems:
            raise ValidationError.from_exception_data(type(self).__name__, problems)
        return self

    @model_validator(mode="after")
    def _codes_have_one_judge(self) -> Self:
        for group in self.groups:
            if not self.recovery(group.name).reassign_steps:
                continue
            if self.settings(group).keeps_codes:
                raise ValueError(
                    "codes of `code_bits` or `error_feedback` cannot be assigned anew: their size "
                    "would change, or their error"
                )
            if self.sensitivity_of(group) != "none":
                raise ValueError(
                    "re-assignment takes the nearest centroid, whatever the sensitivity; give "
                    "either `finetune.reassign_steps` or `sensitivity`"
                )
        return self
