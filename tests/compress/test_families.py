"""The patterns of docs/models.md find the layers of each family of models, and what they find is
noised, compressed, saved and read back."""

import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from compress.checkpoint import save_compressed
from compress.codecs import codec_class
from compress.config import NoiseBlocks, NoiseConfig, QuantizeConfig
from compress.layers import CompressedLayer
from compress.noise import quant_noise
from compress.replacement import replace
from compress.selection import compressible, select, weight_of
from tests.compress.models import make

# family -> patterns, the layers that they leave alone
BERT = ["**.intermediate.dense", "**.layer.*.output.dense", "**.attention.self.*",
        "**.attention.output.dense", "**.word_embeddings"]  # fmt: skip
HEAD = {"classifier"}
POSITIONS = {"position_embeddings", "token_type_embeddings"}
FAMILIES = {
    "bert": (BERT, HEAD | POSITIONS | {"dense"}),  # the pooler
    "roberta": (BERT, {"out_proj", "dense"} | POSITIONS),
    "distilbert": (
        ["**.ffn.*", "**.attention.*", "**.word_embeddings"],
        HEAD | POSITIONS | {"pre_classifier"},
    ),
    "deberta": ([*BERT, "**.rel_embeddings"], HEAD | POSITIONS | {"dense"}),
    "deberta-v2": ([*BERT, "**.rel_embeddings"], HEAD | POSITIONS | {"dense"}),
    "vit": (["**.attention.*", "**.mlp.*", "**.patch_embeddings.projection"], HEAD),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_selected_noised_compressed_saved_and_read(family, tmp_path):
    patterns, left = FAMILIES[family]
    model, inputs = make(family)
    config = QuantizeConfig.model_validate(
        {
            "block_size": 4,
            "codebook_size": 16,
            "iterations": 3,
            "groups": [{"name": "all", "layers": patterns}],
        }
    )
    selection = select(model, config)
    assert not selection.problems
    chosen = {layer.ref.name for layer in selection.layers}
    others = {ref.name for ref in compressible(model)} - chosen
    assert all(name.rpartition(".")[2] in left for name in others)

    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    blocks = dict.fromkeys(chosen, NoiseBlocks(block_size=4, codebook_size=16))
    with torch.no_grad():
        clean = model(**inputs).logits
        with quant_noise(model, blocks, NoiseConfig(function="zero", rate=0.5)):
            for module in model.modules():  # noise only: without dropout
                module.train(not isinstance(module, torch.nn.Dropout))
            assert not torch.equal(model(**inputs).logits, clean)
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)

    model.eval()
    for layer in selection.layers:
        weight = weight_of(model, layer.ref)
        codec, _ = codec_class("product").fit(weight, layer.settings, seed=0)
        replace(model, layer.ref, codec)
    save_compressed(model, tmp_path / "m")
    auto = (
        AutoModelForImageClassification if family == "vit" else AutoModelForSequenceClassification
    )
    read = auto.from_pretrained(tmp_path / "m").eval()
    compressed = {n for n, module in read.named_modules() if isinstance(module, CompressedLayer)}
    assert compressed == chosen
    with torch.no_grad():
        assert torch.equal(read(**inputs).logits, model(**inputs).logits)
