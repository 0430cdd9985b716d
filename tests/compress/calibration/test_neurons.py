"""Statistics of neurons against a count by hand."""

import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from compress.calibration.neurons import _Counts, neurons
from compress.codecs.neurons import ROWS
from compress.errors import InputError
from compress.selection import compressible
from tests.compress.models import make


@pytest.fixture(scope="module")
def measured():
    model, inputs = make("bert")
    refs = [r for r in compressible(model) if "intermediate" in r.name or r.shape == (32, 64)]
    batches = [
        inputs | {"labels": torch.tensor([0, 1])},
        inputs | {"input_ids": inputs["input_ids"].flip(0) + 1, "labels": torch.tensor([1, 1])},
    ]
    return model, refs, batches, neurons(model, batches, refs, classes=3)


def hidden(model, batches):
    """Outputs (tokens, 64) of the second block's neurons on the kept tokens, and their classes."""
    seen = []
    layer = model.get_submodule("bert.encoder.layer.1.intermediate")
    handle = layer.register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        for batch in batches:
            model(**{name: t for name, t in batch.items() if name != "labels"})
    handle.remove()
    masks = [batch["attention_mask"].bool() for batch in batches]
    labels = [b["labels"][:, None].expand(m.shape)[m] for b, m in zip(batches, masks, strict=True)]
    return torch.cat([x[m] for x, m in zip(seen, masks, strict=True)]), torch.cat(labels)


def test_they_are_those_of_one_bit_for_each_token(measured):
    model, refs, batches, found = measured
    assert set(found) == {ref.name for ref in refs}
    own = dict(zip(ROWS, found["bert.encoder.layer.1.output.dense"], strict=True))
    x, classes = hidden(model, batches)
    weights = 1 / x.double().square().sum(1)
    torch.testing.assert_close(own["mean"], (weights @ x.double() / weights.sum()).float())
    weight = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    torch.testing.assert_close(own["norm"], weight.detach().norm(dim=0))
    for i in (0, 7, 63):
        bits = (x[:, i] > 0).long()
        often = bits.double().mean().item()
        assert own["entropy"][i] == pytest.approx(entropy([often, 1 - often], base=2), abs=1e-6)
        information = mutual_info_score(classes, bits) / torch.tensor(2.0).log().item()
        assert own["information"][i] == pytest.approx(information, abs=1e-6)
        parts = [bits[classes == c].double().mean().item() for c in (0, 1)]
        apart = max(entropy([p, 1 - p], [often, 1 - often], base=2) for p in parts)
        assert own["selectivity"][i] == pytest.approx(apart, abs=1e-6)


def test_what_a_neuron_puts_out_at_one_token_is_not_put_in_at_all_others():
    """One neuron is a thousand times as large at one of 64 tokens; the others put out 1 or so."""
    draw = torch.Generator().manual_seed(0)
    x = 1 + 0.1 * torch.randn(64, 32, generator=draw)
    x[:, 5] = 0.0
    x[9, 5] = 1000.0
    counts = _Counts(32, 2)
    for part in x.split(16):
        counts.add(part, torch.zeros(16, dtype=torch.int64))
    mean = counts.bits()[0]
    assert mean[5] < 0.01
    torch.testing.assert_close(mean[:5].float(), x[:, :5].mean(0), atol=0.02, rtol=0.0)
    counts.add(torch.zeros(3, 32), torch.zeros(3, dtype=torch.int64))  # tokens at which none fires
    assert torch.equal(counts.bits()[0], mean)


def test_layers_of_a_block_share_them_and_the_model_is_left_as_it_was(measured):
    model, refs, batches, found = measured
    for i in (0, 1):
        name = f"bert.encoder.layer.{i}"
        assert torch.equal(found[f"{name}.intermediate.dense"], found[f"{name}.output.dense"])
    assert not any(m._forward_pre_hooks for m in model.modules())
    with pytest.raises(InputError, match="no layer of the group"):
        neurons(model, batches, refs[1:], classes=3)


def test_a_neuron_that_never_fires_tells_nothing(measured):
    model, refs, batches, _ = measured
    bias = model.get_parameter("bert.encoder.layer.0.intermediate.dense.bias")
    before = bias.detach().clone()
    with torch.no_grad():
        bias[5] = -50.0
        found = neurons(model, batches, refs, classes=3)["bert.encoder.layer.0.output.dense"]
        bias.copy_(before)
    assert found[1:4, 5].abs().max() == 0 and found[:, 6].isfinite().all()
