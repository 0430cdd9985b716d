"""What is refused is one message and status 2 for somebody at a terminal, too."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.flows.workspaces import call
from tests.security.test_params import SNIPPETS


@pytest.fixture(scope="module")
def compressed(tmp_path_factory, tiny_model):
    """The tiny BERT as a classifier whose query weights are clustered: 3 centroids, 2 bits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from compress.checkpoint import save_compressed
    from compress.codecs import codec_class
    from compress.codecs.product_settings import CodebookConfig
    from compress.replacement import replace
    from compress.selection import compressible, weight_of

    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    settings = CodebookConfig(block_size=4, codebook_size=3)
    for ref in compressible(model):
        if "query" in ref.name:
            codec, _ = codec_class("product").fit(weight_of(model, ref), settings)
            replace(model, ref, codec)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    folder = tmp_path_factory.mktemp("compressed") / "model"
    return save_compressed(model, folder, tokenizer=tokenizer)


@pytest.fixture
def damaged(compressed, tmp_path):
    """A copy whose codes point past the codebook, with no digest that would tell."""
    for path in compressed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    codes = next(name for name in weights if name.endswith(".codes"))
    weights[codes] = torch.full_like(weights[codes], 255)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["sha256"] = {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def refused(folder, *command):
    done = call(folder, "shrinkflow", *command, timeout=60)
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert "Traceback" not in text and "error: " in done.stderr
    assert "\x1b[2J" not in text
    return done.stderr


@pytest.mark.parametrize("command", ["inspect", "evaluate"])
def test_codes_that_point_past_the_codebook(tiny, damaged, command):
    assert "code 3 points past the 3 centroids" in refused(tiny, command, str(damaged))


def test_a_pickle_in_the_place_of_weights_is_not_read(tiny, compressed, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((compressed / "config.json").read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    assert "never pickle" in refused(tiny, "evaluate", str(folder))


@pytest.mark.parametrize("snippet", [SNIPPETS[0], SNIPPETS[6], '"\\e[2J\\ud800": x', "a: &a [*a]"])
def test_tricks_in_params(tiny, snippet):
    with (tiny / "params.yaml").open("a") as file:
        file.write(f"\n{snippet}\n")
    refused(tiny, "plan")
    assert not (tiny / "artifacts").exists()
