"""What methods with integer codes share: codes packed to as many bits as they need."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.codecs.base import Codec
from compress.config import CodecConfig
from compress.errors import InputError
from compress.packing import bits_for, pack, packed_size, unpack


class PackedCodec(Codec):
    """`count` codes in [0, size), stored as uint8 (ceil(count * bits / 8),) in the buffer `codes`.

    Unpacked they are made at the first use after (re)loading and never stored.
    """

    codes: Tensor
    indices: Tensor | None
    unpacked: ClassVar[torch.dtype] = torch.int32

    def __init__(self, shape: Sequence[int], settings: CodecConfig, *, count: int, size: int):
        super().__init__(shape, settings)
        self.count, self.size, self.bits = count, size, bits_for(size)
        packed = torch.zeros(packed_size(count, self.bits), dtype=torch.uint8)
        self.register_buffer("codes", packed)
        self.register_buffer("indices", None, persistent=False)

    def put_codes(self, codes: Tensor) -> None:
        """Stores integer codes (count,)."""
        self.codes.copy_(pack(codes, self.bits))
        self.indices = None

    def _indices(self) -> Tensor:
        """The codes (count,), of the dtype `unpacked`."""
        if self.indices is None:
            with torch.inference_mode(False):  # what was evaluated may be trained afterwards
                self.indices = unpack(self.codes, self.bits, self.count).to(self.unpacked)
        return self.indices

    def check(self) -> None:
        super().check()
        if self.count and (highest := int(self._indices().max())) >= self.size:
            raise InputError(f"code {highest} points past the {self.size} centroids")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.indices = None  # it belongs to the codes of before
