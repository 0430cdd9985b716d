"""The vision transformer of benchmarks/digits.py, trained for a moment on the real digits."""

import pytest

from benchmarks import digits
from benchmarks.glue_cells import read_spec
from benchmarks.vision_methods import METHODS, curves, recovery, results, rows

TRAINING = digits.TRAINING.model_copy(update={"max_steps": 150, "batch_size": 32})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def network(folder):
    return digits.network(0, folder, TRAINING)


@pytest.fixture(scope="module")
def config():
    return rows(read_spec(METHODS), digits.LAYERS)["uniform-8x"]


def test_no_held_out_digit_is_learned_from():
    learned, images, classes = digits.digits()
    assert len(learned) + len(images) == 1797 and len(classes) == digits.HELD_OUT
    seen = {row["pixel_values"].numpy().tobytes() for row in map(learned.__getitem__, range(1437))}
    assert not seen & {image.numpy().tobytes() for image in images}
    assert {int(c) for c in classes} == set(range(10))


def test_it_learns_to_read_and_is_trained_once(network, folder):
    found = network.judge(network.model)
    assert found["accuracy"] > 60
    unlike = TRAINING.model_copy(update={"max_steps": 1})
    again = digits.trained(0, None, next(folder.glob("vit-*[!g]")), unlike)  # read, not trained
    assert network.judge(again) == found


def test_a_cell_fits_its_budget_is_kept_and_told(network, config, tmp_path):
    learned = recovery(20, learning_rate=1e-4, centroid_learning_rate=5e-4)
    small = {"uniform-8x": config}
    found = results(network, small, learned, tmp_path)
    own = found["uniform-8x"]
    assert own["bytes"] < network.bytes / 8
    assert own["after"]["accuracy"] > 40
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert results(network, small, learned, tmp_path, wanted=[]) == found  # not made again
    text = digits.show(read_spec(METHODS), [found])
    assert f"{own['after']['accuracy']:.1f}" in text and "| uniform |" in text


def test_a_budget_too_small_is_told_and_the_others_go_on(network, config, tmp_path):
    budget = config.budget.model_copy(update={"ratio": 100.0})
    found = results(network, {"a": config.model_copy(update={"budget": budget})},
                    recovery(1, 1e-4, 1e-4), tmp_path)  # fmt: skip
    assert "too few" in found["a"]["problem"]


def test_a_curve_has_the_sizes_that_all_seeds_have():
    def cell(accuracy, size):
        return {"after": {"accuracy": accuracy}, "bytes": size}

    first = {"uniform-8x": cell(90.0, 8), "uniform-15x": cell(80.0, 4), "product-8x": cell(95.0, 9)}
    second = {"uniform-8x": cell(92.0, 10), "uniform-15x": {"problem": "too few"}}
    [found] = curves(read_spec(METHODS), [first, second], lambda verdict: verdict["accuracy"])
    assert found.label == "uniform"
    [point] = found.points
    assert (point.bytes, point.mean, list(point.values)) == (9, 91.0, [90.0, 92.0])
