"""The predicted damage of a layer against the loss that is measured when only it is changed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from compress.allocation.sensitivity import damage, random_projection, sensitivity, uniform
from compress.codecs import codec_class
from compress.codecs.product_settings import CodebookConfig
from compress.config import RecoveryConfig
from compress.distillation import hidden_loss, logit_loss
from compress.rows import Rows, batches
from compress.selection import compressible, weight_of

RECOVERY = RecoveryConfig(logits_weight=3.0)


@pytest.fixture(scope="module")
def trained(finetuned):
    """The small finetuned RoBERTa in double the batches, its tokenizer and rows."""
    folder = finetuned / "finetuned"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return model, tokenizer, Rows(finetuned / "data" / "train.parquet")


def measured(model, changed, batches):
    """The recovery loss of `changed` against `model`, mean over batches."""
    losses = []
    with torch.no_grad():
        for batch in batches:
            t, s = (m(**batch, output_hidden_states=True) for m in (model, changed))
            loss = RECOVERY.logits_weight * logit_loss(s.logits, t.logits, RECOVERY.temperature)
            loss += RECOVERY.hidden_weight * hidden_loss(
                s.hidden_states, t.hidden_states, batch["attention_mask"]
            )
            losses.append(float(loss))
    return float(np.mean(losses))


def test_predicted_and_measured_damage_rank_the_layers_alike(trained, finetuned):
    model, tokenizer, rows = trained
    refs = [ref for ref in compressible(model) if ref.name.startswith("roberta.")]
    found = sensitivity(model, tokenizer, rows, refs, RECOVERY)
    assert found == sensitivity(model, tokenizer, rows, refs, RECOVERY)
    changed = AutoModelForSequenceClassification.from_pretrained(finetuned / "finetuned").eval()
    chosen = [
        {k: v for k, v in b.items() if k != "labels"} for b in batches(rows, tokenizer, 128, 16)
    ]
    predicted, seen = [], []
    for ref in refs:
        weight = weight_of(changed, ref)
        whole = weight.detach().clone()
        settings = CodebookConfig(block_size=2, codebook_size=16, iterations=4)
        if codec_class("product").problems(ref.shape, settings):
            continue
        decoded = codec_class("product").fit(whole, settings)[0].decode().detach()
        with torch.no_grad():
            weight.copy_(decoded)
        energy = float(whole.square().sum())
        distortion = float((decoded - whole).square().sum()) / energy
        predicted.append(damage(found[ref.name], energy, distortion))
        seen.append(measured(model, changed, chosen))
        with torch.no_grad():
            weight.copy_(whole)
    assert len(seen) > 12
    assert spearmanr(predicted, seen)[0] > 0.8
    assert 0.3 < np.median(np.array(seen) / predicted) < 3  # a model of 32 units is not smooth


def test_the_projection_has_the_hessian_of_the_loss_as_its_second_moment():
    """Draws of r against the Hessian by autograd of the very loss that recovery uses."""
    generator = torch.Generator().manual_seed(0)
    states = tuple(torch.randn(2, 3, 2, generator=generator) for _ in range(2))
    logits = torch.randn(2, 3, generator=generator)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    flat = torch.cat([logits.flatten(), *(s.flatten() for s in states)])

    def unpack(x):
        a, b = x[6:18].view(2, 3, 2), x[18:].view(2, 3, 2)
        return SimpleNamespace(logits=x[:6].view(2, 3), hidden_states=(a, b))

    def loss(x):
        out = unpack(x)
        return RECOVERY.logits_weight * logit_loss(
            out.logits, logits, RECOVERY.temperature
        ) + RECOVERY.hidden_weight * hidden_loss(out.hidden_states, states, mask)

    hessian = torch.autograd.functional.hessian(loss, flat)
    x = flat.clone().requires_grad_()
    total = torch.zeros(len(flat), len(flat))
    for _ in range(draws := 3000):
        probe = random_projection(unpack(x), mask, RECOVERY, generator)
        (g,) = torch.autograd.grad(probe, x)
        total += g[:, None] * g / draws
    assert torch.allclose(total, hessian, atol=4 * float(hessian.abs().max()) / draws**0.5)


def test_without_data_equal_relative_errors_do_equal_harm(trained):
    model = trained[0]
    layers = [SimpleNamespace(ref=ref) for ref in compressible(model)]
    curves = {x.ref.name: {"energy": float(i)} for i, x in enumerate(layers)}
    found = uniform(curves, layers)
    for i, layer in enumerate(layers[1:], 1):
        weights = torch.Size(layer.ref.shape).numel()
        assert damage(found[layer.ref.name], i, 0.1) == pytest.approx(0.1 * weights)
    assert damage(found[layers[0].ref.name], 0.0, 0.1) == 0.0  # a weight of zeros costs nothing
