"""The settings of a compression method, whichever it is."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from compress.config.section import Section
from compress.errors import InputError


class CodecConfig(Section):
    """What a weight is compressed with. Every method extends it, in its file in compress/codecs."""

    shown: ClassVar[tuple[str, ...]] = ()
    method: str

    @property
    def keeps_codes(self) -> bool:
        """Whether the size of the file rests on the very codes that were fitted."""
        return False

    def summary(self) -> str:
        """For tables, the fields in `shown`: `product, block_size 8, codebook_size 256`."""
        values = ((name, getattr(self, name)) for name in self.shown)
        return ", ".join([self.method, *(f"{name} {value}" for name, value in values if value)])


def codec_config(method: str, values: Mapping[str, Any]) -> CodecConfig:
    """The settings of a method. Raises ValidationError, also where there is no such method."""
    from compress.codecs.registry import codec_class

    try:
        cls = codec_class(method).Settings
    except InputError as unknown:
        problem = _problem(("method",), str(unknown), method)
        raise ValidationError.from_exception_data(method, [problem]) from None
    try:
        return cls(method=method, **values)
    except ValidationError as error:
        keys = ", ".join(name for name in cls.model_fields if name != "method")
        problems = moved((), error, unknown=f"unknown key; {method} has {keys}")
        raise ValidationError.from_exception_data(method, problems) from None


def moved(
    place: tuple[str | int, ...], error: ValidationError, unknown: str | None = None
) -> list[InitErrorDetails]:
    """The problems of `error`, moved to `place`; an unknown key is told as `unknown` says."""
    return [
        _problem(
            (*place, *problem["loc"]),
            unknown if unknown and problem["type"] == "extra_forbidden" else problem["msg"],
            problem["input"],
        )
        for problem in error.errors()
    ]


def _problem(place: tuple[str | int, ...], text: str, value: Any) -> InitErrorDetails:
    kind = PydanticCustomError("settings", "{text}", {"text": text})
    return InitErrorDetails(type=kind, loc=place, input=value)
