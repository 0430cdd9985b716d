"""What error feedback is said to leave, against what it leaves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.codecs.moments import damped, unit_upper_inverse, upper_factor
from compress.codecs.product_gain import gains
from tests.compress.codecs.test_product_feedback import correlated, fits, weight

SIZES = [(2, 64), (4, 64), (4, 16), (8, 64), (8, 16), (8, 4)]  # from 3 bits a weight to a quarter


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_the_inverse_of_a_factor(n):
    factor = upper_factor(damped(correlated(n)[0]))
    unit = factor / factor.diagonal()
    torch.testing.assert_close(unit_upper_inverse(unit) @ unit, torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize(("block_size", "codebook_size"), SIZES)
def test_it_is_what_was_predicted_of_fine_codes_and_of_coarse_ones(block_size, codebook_size):
    values, moments = weight(512, 128), correlated(128, large=0)
    (_, plain), (_, report) = fits(
        values, moments, block_size=block_size, codebook_size=codebook_size
    )
    found = report.output_distortion / report.output_distortion_nearest
    [predicted] = gains(moments[0], [plain.relative_distortion])
    assert found == pytest.approx(predicted, rel=0.25)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 9))
def test_coarser_codes_gain_less_and_none_loses(distortions, n, seed):
    found = gains(correlated(n, seed)[0], sorted(distortions))
    assert found == sorted(found)
    assert found[0] > 0 and found[-1] <= 1


def test_inputs_that_have_nothing_in_common_gain_nothing():
    assert gains(torch.eye(8), [0.0, 0.5]) == pytest.approx([1.0, 1.0])


def test_the_same_for_any_number_of_threads():
    known, threads = set(), torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            known.add(tuple(gains(correlated(384)[0], [0.1, 0.5])))
    finally:
        torch.set_num_threads(threads)
    assert len(known) == 1
