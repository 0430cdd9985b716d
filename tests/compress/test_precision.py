import torch

from compress.precision import round_to_half, stored


def test_only_what_fp16_holds_exactly_is_stored_as_fp16():
    assert stored(torch.tensor([1.0, 0.5, -65504.0])).dtype == torch.float16
    assert stored(torch.tensor([1.0, 0.1])).dtype == torch.float32
    assert stored(torch.tensor([1, 2])).dtype == torch.int64


def test_rounding_makes_a_tensor_storable():
    tensor = torch.randn(100)
    round_to_half(tensor)
    assert tensor.dtype == torch.float32
    assert stored(tensor).dtype == torch.float16


def test_values_beyond_fp16_keep_their_precision():
    tensor = torch.tensor([1e6, 0.1])
    round_to_half(tensor)
    assert torch.equal(tensor, torch.tensor([1e6, 0.1]))
    assert stored(tensor).dtype == torch.float32
