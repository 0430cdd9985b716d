"""What product quantization can be asked for, and what it reports."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from compress.codecs.report import OutputReport
from compress.config import CodecConfig, Positive
from compress.kmeans.relaxation import RELAXATION


class CodebookConfig(CodecConfig):
    """A weight as clusters: `block_size` weights share a code of log2(codebook_size) bits.

    code_bits: a code takes no more than that on the mean, entropy-coded in the file; codes are
    chosen by what they cost as well as by their error. None: by their error alone.
    error_feedback: each code makes good what those before it in its row got wrong, as the layer's
    output sees it, or for the row of an input, as an embedding has it, what comes after.
    """

    shown: ClassVar[tuple[str, ...]] = ("block_size", "codebook_size", "code_bits", "row_scale")
    method: str = "product"
    block_size: Positive = 8
    codebook_size: Annotated[int, Field(ge=2, le=65536)] = 256
    code_bits: Annotated[float, Field(gt=0)] | None = None
    row_scale: bool = False
    error_feedback: bool = False
    iterations: Positive = 15
    seeding: Literal["random", "kmeans++", "partition", "partition-even"] = "partition"
    empties: Literal["perturb", "partition"] = "partition"
    relaxation: Annotated[float, Field(gt=0, lt=2)] = RELAXATION
    consolidation: Literal["auto", "off"] = "auto"

    @property
    def keeps_codes(self) -> bool:
        return self.code_bits is not None or self.error_feedback


@dataclass(frozen=True)
class ProductReport(OutputReport):
    """The fit of one codebook; `usage[c]` is the number of blocks that use centroid c. Dead are
    those that k-means left without a block, not those that `code_bits` gave up for their price.
    """

    empty_initial: int
    empty_total: int
    resolution_rounds: int
    dead: int
    distortion_trace: list[float]
    empty_trace: list[int]
    usage: list[int]
