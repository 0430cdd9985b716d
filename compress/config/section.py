"""What all sections of params.yaml have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0, lt=1 << 31)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A section of params.yaml. Unknown keys are an error, values are never changed after."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
