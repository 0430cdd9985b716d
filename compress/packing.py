"""n-bit codes <-> bytes. Code i lies in bits [i * bits, (i + 1) * bits) of the stream; bit j of the
stream is bit j % 8 of byte j // 8 (little-endian, whatever the machine)."""

import torch
from torch import Tensor

from compress.errors import InputError

CHUNK = 1 << 18  # codes at a time; a multiple of 8, so that every chunk fills whole bytes


def bits_for(codebook_size: int) -> int:
    """Bits of one code: ceil(log2 k), at least 1."""
    return max(1, (codebook_size - 1).bit_length())


def packed_size(n: int, bits: int) -> int:
    """Bytes that `n` codes of `bits` bits take."""
    return (n * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs integer codes (n,) in [0, 2**bits) into uint8 (ceil(n * bits / 8),), on their device.

    The unused bits of the last byte are zero. Raises InputError for a code that does not fit.
    """
    _check_bits(bits)
    if codes.ndim != 1 or codes.is_floating_point():
        raise InputError(f"codes must be integers (n,), got {codes.dtype} {tuple(codes.shape)}")
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << bits:
        raise InputError(f"codes {int(codes.min())}..{int(codes.max())} do not fit in {bits} bits")
    if bits == 8:
        return codes.to(torch.uint8)
    if bits == 16:
        wide = codes.to(torch.int32)
        return torch.stack((wide & 255, wide >> 8), 1).to(torch.uint8).reshape(-1)
    chunks = [_pack_chunk(chunk, bits) for chunk in codes.split(CHUNK)]
    return torch.cat(chunks) if chunks else codes.to(torch.uint8)


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The codes, int32 (n,), that `pack` put into `packed`. InputError on a wrong size."""
    _check_bits(bits)
    if packed.dtype != torch.uint8 or packed.shape != (packed_size(n, bits),):
        raise InputError(
            f"{n} codes of {bits} bits are {packed_size(n, bits)} bytes of uint8, "
            f"got {packed.dtype} {tuple(packed.shape)}"
        )
    if bits == 8:
        return packed.to(torch.int32)
    if bits == 16:
        pairs = packed.to(torch.int32).view(-1, 2)
        return pairs[:, 0] | pairs[:, 1] << 8
    chunks = [_unpack_chunk(chunk, bits) for chunk in packed.split(CHUNK // 8 * bits)]
    return torch.cat(chunks)[:n] if chunks else packed.to(torch.int32)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise InputError(f"codes have 1 to 16 bits, not {bits}")


def _pack_chunk(codes: Tensor, bits: int) -> Tensor:
    size = packed_size(len(codes), bits)
    steps = torch.arange(bits, device=codes.device, dtype=torch.int32)
    stream = (codes.to(torch.int32)[:, None] >> steps & 1).to(torch.uint8).view(-1)  # (n * bits,)
    stream = torch.nn.functional.pad(stream, (0, size * 8 - len(stream)))
    places = torch.arange(8, device=codes.device, dtype=torch.uint8)
    return (stream.view(size, 8) << places).sum(1, dtype=torch.uint8)


def _unpack_chunk(packed: Tensor, bits: int) -> Tensor:
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    stream = (packed[:, None] >> places & 1).view(-1)  # (bytes * 8,)
    stream = stream[: len(stream) // bits * bits].view(-1, bits)
    steps = torch.arange(bits, device=packed.device, dtype=torch.int32)
    return (stream.to(torch.int32) << steps).sum(1, dtype=torch.int32)
