import pytest
import torch

from compress.codecs.nested_grids import residuals


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_the_sum_of_all_residuals_is_the_plain_grid(bits):
    draw = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(50, 200, generator=draw, dtype=torch.float64)
    reach = torch.linspace(0.05, 0.4, 50).double()[:, None]
    total = sum(residuals(x, reach, [w for w in (4, 8, 16) if w <= bits]))
    step = 2 * reach / (2**bits - 1)
    plain = (x / step).round().clamp(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) * step
    torch.testing.assert_close(total, plain, rtol=1e-9, atol=1e-12)
