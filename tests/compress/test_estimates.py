import pytest
import torch

from compress import estimates
from compress.estimates import Shape
from compress.resources import resource_problems
from tests.compress.models import make

MINILM = Shape(
    parameters=22_713_986, matrices=10_765_056, hidden=384, depth=6, heads=12, vocabulary=30_522
)


def test_shape_of_a_model():
    model, _ = make("roberta")
    shape = Shape.of(model, matrices=5)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert (shape.hidden, shape.depth, shape.heads, shape.vocabulary) == (32, 2, 4, 120)
    assert shape.matrices == 5
    assert Shape.of(make("resnet")[0], 1).hidden == 0  # no transformer: only what is known


def test_training_memory_is_near_what_was_measured():
    """Finetuning MiniLM with 32 rows of 64 tokens took 1,483 MiB at its peak."""
    measured = 1483 << 20
    assert estimates.training_memory(MINILM, 32, 64) == pytest.approx(measured, rel=0.25)


def test_activations_are_near_what_autograd_keeps():
    model, inputs = make("bert")
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(**inputs)
    batch, length = inputs["input_ids"].shape
    estimate = Shape.of(model, 1).activations(batch, length)
    assert 0.5 < estimate / sum(kept.values()) < 2


def test_more_of_anything_needs_more():
    more = Shape(**(vars(MINILM) | {"parameters": 10**9, "matrices": 10**9}))
    assert estimates.training_memory(MINILM, 32, 128) > estimates.training_memory(MINILM, 32, 64)
    assert estimates.training_memory(more, 32, 64) > estimates.training_memory(MINILM, 32, 64)
    assert estimates.recovery_memory(MINILM, 32, 64) > estimates.training_memory(MINILM, 32, 64)
    one, two = (estimates.clustering_memory([(80, 10), (8, 1), (800, 100)], n) for n in (1, 2))
    assert (one - estimates.BASE, two - one) == (12 * 800 + 24 * 100, 12 * 80 + 24 * 10)
    assert estimates.training_seconds(more, 10, 32, 64, 1e11) > estimates.training_seconds(
        MINILM, 10, 32, 64, 1e11
    )


def test_the_machine_is_measured():
    assert estimates.machine_speed() > 1e8
    assert 0 < estimates.free_memory() < 1 << 50


def test_what_the_machine_lacks_is_a_problem(tmp_path):
    assert resource_problems(1, 1, tmp_path / "not" / "yet") == []
    memory, disk = resource_problems(1 << 60, 1 << 60, tmp_path)
    assert "1152921504.6 GB of memory are needed" in memory
    assert f"are free at {tmp_path}" in disk
