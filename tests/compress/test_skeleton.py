import json

import pytest
from transformers import BertConfig, BertModel

from compress.errors import InputError
from compress.selection import compressible
from compress.skeleton import skeleton, tensor_key
from tests.compress.models import SIZES, make


def test_a_bare_encoder_gives_the_names_of_the_task_model(tmp_path):
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # the config is enough
    model = skeleton(tmp_path, num_labels=5)
    refs = {ref.name: ref for ref in compressible(model)}
    assert all(parameter.is_meta for parameter in model.parameters())
    assert refs["classifier"].shape == (5, 32)
    ref = refs["bert.encoder.layer.0.intermediate.dense"]
    assert tensor_key(ref, [ref.tensor], "bert") == ref.tensor
    bare = "encoder.layer.0.intermediate.dense.weight"
    assert tensor_key(ref, [bare], "bert") == bare
    assert tensor_key(refs["classifier"], [bare], "bert") is None


def test_a_tied_weight_is_found_under_any_of_its_names():
    model, _ = make("masked-lm")
    ref = next(ref for ref in compressible(model) if ref.aliases)
    assert tensor_key(ref, ["cls.predictions.decoder.weight"], "bert") is not None


def test_masked_lm_skeletons_are_tied(tmp_path):
    BertConfig(**SIZES).save_pretrained(tmp_path)
    model = skeleton(tmp_path, "masked-lm")
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize(
    ("config", "task"),
    [({"model_type": "no-such"}, "masked-lm"), ({"model_type": "resnet"}, "masked-lm"), ({}, "x")],
)
def test_what_cannot_be_built_is_an_input_error(tmp_path, config, task):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        skeleton(tmp_path, task)
