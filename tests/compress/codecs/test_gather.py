import pytest
import torch

from compress.codecs.gather import gather, make_bags


@pytest.mark.parametrize("with_bags", [True, False])
def test_gradient_is_that_of_indexing(with_bags):
    torch.manual_seed(0)
    codebook = torch.randn(16, 4, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, 13, (500,), dtype=torch.int32)  # three centroids stay unused
    upstream = torch.randn(500, 4, dtype=torch.float64)
    rows = gather(codebook, indices, make_bags(indices, 16) if with_bags else None)
    (ours,) = torch.autograd.grad(rows, codebook, upstream)
    (reference,) = torch.autograd.grad(codebook[indices.long()], codebook, upstream)
    assert torch.equal(rows, codebook[indices.long()])
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    assert not ours[13:].any()


def test_gradient_does_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    codebook = torch.randn(256, 8, requires_grad=True)
    indices = torch.randint(0, 256, (60_000,), dtype=torch.int32)
    bags, upstream = make_bags(indices, 256), torch.randn(60_000, 8)
    threads = torch.get_num_threads()
    grads = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            rows = gather(codebook, indices, bags)
            grads.append(torch.autograd.grad(rows, codebook, upstream)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


def test_a_bfloat16_codebook_is_summed_in_float32():
    codebook = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    indices = torch.zeros(1000, dtype=torch.int32)
    rows = gather(codebook, indices, make_bags(indices, 2))
    rows.sum().backward()
    assert codebook.grad[0].item() == 1000  # bf16 sums stop growing at 256
