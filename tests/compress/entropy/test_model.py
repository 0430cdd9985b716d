import math

import numpy as np
import pytest

from compress.entropy.model import frequencies_of, shortest


def test_rows_of_two_kinds_fall_into_two_classes():
    draw = np.random.default_rng(0)
    kinds = draw.integers(0, 2, 200)
    codes = draw.integers(0, 8, (200, 100)) + 8 * kinds[:, None]
    model = shortest(codes.astype(np.int32), 16)
    assert model.bits == 1
    assert len({*zip(kinds.tolist(), model.classes.tolist(), strict=True)}) == 2
    assert ((model.frequencies > 0).sum(1) == 8).all()


def test_rows_of_one_kind_are_one_class():
    codes = np.random.default_rng(0).integers(0, 256, (100, 500)).astype(np.int32)
    model = shortest(codes, 256)
    assert model.bits == 0
    assert not model.classes.any()


def test_frequencies_are_in_proportion_and_add_up():
    counts = np.array([0, 1, 10, 1000, 0, 3])
    found = frequencies_of(counts, 12)
    assert found.sum() == 1 << 12
    assert ((found > 0) == (counts > 0)).all()
    assert math.isclose(found[3] / found.sum(), 1000 / 1014, rel_tol=0.01)


@pytest.mark.parametrize("counts", [[7, 0], [0, 7], [0, 0]])
def test_no_code_takes_all_of_them(counts):
    found = frequencies_of(np.array(counts), 12)
    assert found.sum() == 1 << 12
    assert found.max() < 1 << 12
