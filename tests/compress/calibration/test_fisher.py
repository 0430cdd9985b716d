"""The diagonal against what an error in a single weight adds to the recovery's loss."""

import copy

import pytest
import torch
from scipy.stats import spearmanr

from compress.calibration.fisher import fisher
from compress.config import RecoveryConfig
from compress.selection import compressible
from tests.compress.models import make

RECOVERY = RecoveryConfig(logits_weight=3.0)
LINEAR = "roberta.encoder.layer.0.intermediate.dense"
WORDS = "roberta.embeddings.word_embeddings"


@pytest.fixture(scope="module")
def measured():
    model, inputs = make("roberta")
    refs = [ref for ref in compressible(model) if ref.name in (LINEAR, WORDS)]
    batches = [inputs] * 400  # draws of one batch
    found = fisher(copy.deepcopy(model), batches, refs, RECOVERY, seed=1)
    return model, inputs, refs, found


def loss(model, inputs, name, change):
    """Of the recovery (compress.distillation), in double precision, where the named weight has
    `change` added."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        target = model(**inputs, output_hidden_states=True)
        model.get_submodule(name).weight.add_(change)
        student = model(**inputs, output_hidden_states=True)
    keep, t = inputs["attention_mask"].bool(), RECOVERY.temperature
    states = zip(student.hidden_states, target.hidden_states, strict=True)
    hidden = [(a[keep] - b[keep]).square().sum() / b[keep].square().sum() for a, b in states]
    p, q = ((out.logits / t).log_softmax(-1) for out in (student, target))
    logits = t**2 * (q.exp() * (q - p)).sum() / len(p)
    return float(RECOVERY.logits_weight * logits + torch.stack(hidden).mean())


def test_it_is_what_an_error_in_one_weight_costs(measured):
    model, inputs, _, found = measured
    draw = torch.Generator().manual_seed(0)
    costs, predicted = [], []
    for _ in range(40):
        row, column = (int(torch.randint(n, (1,), generator=draw)) for n in found[LINEAR].shape)
        change = torch.zeros_like(found[LINEAR])
        change[row, column] = 0.01
        costs.append(loss(model, inputs, LINEAR, change))
        predicted.append(float(found[LINEAR][row, column]))
    assert spearmanr(costs, predicted).statistic > 0.9


def test_a_row_of_an_embedding_costs_what_it_is_said_to(measured):
    model, inputs, _, found = measured
    seen = inputs["input_ids"][inputs["attention_mask"].bool()].unique()
    costs, predicted = [], []
    for row in seen.tolist():
        change = torch.zeros_like(found[WORDS])
        change[row] = 0.02 * torch.randn(32, generator=torch.Generator().manual_seed(row))
        costs.append(loss(model, inputs, WORDS, change))
        predicted.append(float(found[WORDS][row].sum()))
    assert spearmanr(costs, predicted).statistic > 0.5
    never = torch.ones(120, dtype=torch.bool)
    never[inputs["input_ids"].unique()] = False
    assert 0 < float(found[WORDS][never].sum(1).max()) < min(predicted)


def test_the_same_seed_gives_the_same_and_no_weight_is_ignored(measured):
    model, inputs, refs, found = measured
    few = [fisher(copy.deepcopy(model), [inputs] * 2, refs, RECOVERY, seed=s) for s in (1, 1, 2)]
    for ref in refs:
        assert found[ref.name].shape == ref.shape
        assert float(found[ref.name].min()) > 0
        assert float(found[ref.name].mean()) == pytest.approx(1.0, rel=1e-3)
        assert torch.equal(few[0][ref.name], few[1][ref.name])
        assert not torch.equal(few[0][ref.name], few[2][ref.name])


def test_a_layer_without_gradient_is_weighted_evenly():
    model, inputs = make("roberta")
    refs = [ref for ref in compressible(model) if ref.name == LINEAR]
    nothing = RecoveryConfig(logits_weight=0.0, hidden_weight=0.0, label_weight=1.0)
    found = fisher(model, [inputs], refs, nothing)[LINEAR]
    assert torch.equal(found, torch.ones_like(found))
