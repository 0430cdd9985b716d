"""1,000 damaged checkpoints: each is refused with one of our errors, or read to the last bit."""

import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from compress.errors import InputError
from tests.security.mutations import damage

CASES = 1000
SECONDS = 10.0  # of one case; an undamaged folder takes 0.03


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny compressed classifier; its embeddings stay as they are. 3 centroids take 2 bits, or
    1.6 where they are entropy-coded: in the two larger layers."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    from compress.checkpoint import save_compressed
    from compress.codecs import codec_class
    from compress.codecs.product_settings import CodebookConfig
    from compress.replacement import replace
    from compress.selection import compressible, weight_of

    torch.manual_seed(0)
    sizes = {"vocab_size": 24, "hidden_size": 8, "intermediate_size": 256}
    config = BertConfig(
        **sizes, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8
    )
    model = AutoModelForSequenceClassification.from_config(config)
    settings = CodebookConfig(block_size=4, codebook_size=3)
    for ref in compressible(model):
        if "encoder" in ref.name:
            codec, _ = codec_class("product").fit(weight_of(model, ref), settings)
            replace(model, ref, codec)
    folder = save_compressed(model, tmp_path_factory.mktemp("whole") / "model")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert sum("coded" in layer for layer in config["layers"]) == 2
    return folder


def refused(call, *args):
    """What `call` gives, or None where it raises one of our errors with a message."""
    started = time.monotonic()
    try:
        return call(*args)
    except InputError as error:
        assert str(error).strip()
        return None
    finally:
        assert time.monotonic() - started < SECONDS


def test_damaged_checkpoints_are_refused_or_read_to_the_last_bit(whole, tmp_path):
    from compress.loading import load_model
    from tasks.planning import inspect_folder

    right = load_model(whole).state_dict()
    layers = inspect_folder(whole)["layers"]
    seen: Counter[str] = Counter()
    wrong = []
    for case in range(CASES):
        draw = random.Random(f"checkpoint {case}")
        folder = tmp_path / "case"
        shutil.copytree(whole, folder)
        kind = damage(draw, folder)
        model = None
        try:
            model = refused(load_model, folder)
            found = refused(inspect_folder, folder)
            if model is not None:
                check_structure(model)
                if not kind.startswith("both"):  # else there is no digest, or one that fits
                    assert same(model.state_dict(), right), "other weights"
            assert found is None or len(found["layers"]) == len(layers)
        except BaseException as error:
            wrong.append(f"case {case} ({kind}): {type(error).__name__}: {error}")
        seen[f"{kind.partition(' ')[0]} {'refused' if model is None else 'read'}"] += 1
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)
    assert all(seen[f"{kind} refused"] for kind in ("config", "layers", "weights", "both", "files"))
    assert sum(count for name, count in seen.items() if "refused" in name) > CASES / 2


def same(state, right):
    return state.keys() == right.keys() and all(torch.equal(state[k], right[k]) for k in right)


def check_structure(model):
    """Codes inside the codebook, sizes that match, numbers that are finite."""
    from compress.layers import CompressedLayer

    for module in model.modules():
        if isinstance(module, CompressedLayer):
            codec = module.codec
            assert int(codec._indices().max()) < len(codec.codebook)
            assert codec.decode().shape == codec.shape
            assert bool(torch.isfinite(codec.decode()).all())
