"""Second moments of gradients against those of a loss that is differentiated by hand."""

import pytest
import torch

from compress.allocation.sensitivity import random_projection
from compress.calibration.output_moments import output_moments
from compress.config import RecoveryConfig
from compress.selection import compressible
from tests.compress.models import make

RECOVERY = RecoveryConfig(hidden_weight=5.0, logits_weight=0.0)  # neither counts


def test_an_embedding_has_the_products_of_its_gradients_on_the_kept_tokens():
    model, inputs = make("bert")
    refs = [ref for ref in compressible(model) if ref.name.endswith("word_embeddings")]
    [found] = output_moments(model, [inputs], refs, RECOVERY).values()
    embedding, kept = model.bert.embeddings.word_embeddings, {}

    def keep(module, args, output):
        kept["x"] = output.detach().requires_grad_()
        return kept["x"]

    handle = embedding.register_forward_hook(keep)
    logits = RECOVERY.model_copy(update={"hidden_weight": 0.0, "logits_weight": 1.0})
    generator, mask = torch.Generator().manual_seed(0), inputs["attention_mask"]
    probe = random_projection(model(**inputs), mask, logits, generator)
    (grad,) = torch.autograd.grad(probe, kept["x"])
    handle.remove()
    g = grad[mask.bool()].double()
    products = g.T @ g
    expected = (products / products.diagonal().mean()).float()[None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_tied_embedding_is_left_out_and_positions_have_those_of_their_outputs():
    model, inputs = make("gpt2")
    refs = compressible(model)
    (positions,) = [ref for ref in refs if ref.kind == "embedding" and ref.has_moments]
    (own,) = output_moments(model, [inputs] * 2, [positions], RECOVERY).values()
    assert own.shape[1] == positions.shape[1]
    assert torch.linalg.eigvalsh(own[0].double()).min() > -1e-4
    assert own.diagonal(dim1=1, dim2=2).mean() == pytest.approx(1.0, rel=1e-4)
    assert [ref.name for ref in refs if not ref.has_moments] == ["transformer.wte"]
