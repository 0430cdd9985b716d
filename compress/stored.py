"""What of a model goes into its safetensors file: tensors, their precision, the bytes."""

import json
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compress.codecs.base import Codec
from compress.precision import round_to_half, stored

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
# The order in which safetensors lays tensors out: by dtype, then by name.
DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def codec_tensors(model: nn.Module) -> set[str]:
    """Names, in the state dict, of the tensors that belong to codecs."""
    return {
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if isinstance(module, Codec)
        for tensor in module.state_dict()
    }


def coded_tensors(model: nn.Module) -> dict[str, Tensor]:
    """{name in the state dict: coded codes} of the layers whose codes are stored entropy-coded.

    On the meta device those that are offloaded so.
    """
    codecs = {name: module for name, module in model.named_modules() if isinstance(module, Codec)}
    coded = {f"{name}.codes": codec.coded_codes() for name, codec in codecs.items()}
    return {name: stream for name, stream in coded.items() if stream is not None}


def round_stored(model: nn.Module, rest: str) -> None:
    """Rounds in place the floats that are stored as fp16: codecs, and the rest if "float16"."""
    codecs = codec_tensors(model)
    for name, tensor in model.state_dict().items():
        if rest == "float16" or name in codecs:
            round_to_half(tensor)


def stored_state(model: nn.Module, rest: str, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in the precision it is stored in; nothing in it loses a bit.

    `streams` (of `coded_tensors`) take the place of the codes.

    What `round_stored` would round is fp16 where it already holds fp16 values, else (after
    training, in a Trainer's checkpoint) it keeps its own precision. Tied tensors stay the same
    object, so that they are written once.
    """
    codecs = codec_tensors(model)
    made: dict[tuple[int, torch.Size], Tensor] = {}
    state = {}
    for name, tensor in {**model.state_dict(), **streams}.items():
        if tensor.is_meta or not (rest == "float16" or name in codecs):
            state[name] = tensor
            continue
        key = (tensor.data_ptr(), tensor.shape)
        if key not in made or not tensor.numel():
            made[key] = stored(tensor)
        state[name] = made[key]
    return state


def stored_bytes(model: nn.Module, rest: str) -> int:
    """Size of the model.safetensors that `save_compressed` writes.

    Exact, but for tensors with values beyond fp16, which are counted as fp16 and stored as fp32. On
    the meta device, where there are no codes, the most it can be: that of packed codes.
    """
    layout = dict(stored_layout(model, rest))
    for name, codec in model.named_modules():
        if isinstance(codec, Codec):
            own = {f"{name}.{part}": entry for part, entry in codec.stored_layout().items()}
            layout |= {part: entry for part, entry in own.items() if part in layout}
    for name, stream in coded_tensors(model).items():
        layout[name] = (stream.dtype, tuple(stream.shape))
    return safetensors_bytes(layout)


def stored_layout(model: nn.Module, rest: str) -> Layout:
    """{name: (dtype, shape)} of the tensors in that file; tied ones once, under the first name."""
    codecs = codec_tensors(model)
    seen: set[int] = set()
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        half = tensor.is_floating_point() and (rest == "float16" or name in codecs)
        layout[name] = (torch.float16 if half else tensor.dtype, tuple(tensor.shape))
    return layout


def safetensors_bytes(layout: Layout) -> int:
    """Size of a safetensors file of tensors {name: (dtype, shape)}: length, JSON header, data."""
    header, starts = safetensors_header(layout)
    sizes = (math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())
    return max(
        (start + size for start, size in zip(starts.values(), sizes, strict=True)),
        default=len(header),
    )


def safetensors_header(layout: Layout) -> tuple[bytes, dict[str, int]]:
    """What comes before the data in a file of tensors {name: (dtype, shape)}, as the safetensors
    library writes it, and the first byte of each tensor, in the order of the layout."""
    order = list(DTYPES)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, (dtype, shape) in sorted(
        layout.items(), key=lambda item: (order.index(item[1][0]), item[0])
    ):
        starts[name], end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + starts[name] for name in layout}
