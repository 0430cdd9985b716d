"""Models with entropy-coded codes on disk: in memory they are as any other."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from compress.checkpoint import save_compressed, stored_bytes
from compress.codecs import codec_class
from compress.codecs.lowrank import LowRankConfig
from compress.codecs.packed import PackedCodec
from compress.errors import CheckpointError
from compress.manifest import install, list_entries, read_entries
from compress.replacement import replace
from compress.selection import compressible, weight_of
from tests.compress.models import MODELS, compress, make
from tests.compress.test_checkpoint import AUTO, logits

FIRST = "bert.encoder.layer.0.intermediate.dense"


def codecs(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, PackedCodec)}


def coded(folder):
    """Bytes of the coded codes by layer, as config.json says."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    return {layer["name"]: layer["coded"] for layer in config["layers"] if "coded" in layer}


@pytest.fixture(scope="module")
def model_and_inputs():
    """Ten centroids take 3.2 of 4 bits; a tied embedding; a layer without any codes."""
    model, inputs = make("masked-lm")
    compress(model, only="intermediate", codebook_size=10)
    compress(model, only="embeddings", codebook_size=10)
    ref = next(r for r in compressible(model) if "0.attention.output" in r.name)
    codec, _ = codec_class("lowrank").fit(weight_of(model, ref), LowRankConfig(rank=4))
    replace(model, ref, codec)
    return model, inputs


@pytest.fixture(scope="module")
def folder(model_and_inputs, tmp_path_factory):
    return save_compressed(model_and_inputs[0], tmp_path_factory.mktemp("coded") / "m")


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "m")


def load(folder):
    return AUTO["masked-lm"].from_pretrained(folder)


def test_the_loaded_model_is_the_same_to_the_last_bit(model_and_inputs, folder):
    model, inputs = model_and_inputs
    loaded = load(folder)
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))
    state, right = loaded.state_dict(), model.state_dict()
    assert state.keys() == right.keys()
    assert all(torch.equal(state[name], right[name]) for name in right)


def test_the_file_holds_what_config_json_says_and_no_more_than_planned(model_and_inputs, folder):
    model, _ = model_and_inputs
    file = folder / "model.safetensors"
    sizes = coded(folder)
    assert FIRST in sizes
    for name, codec in codecs(model).items():
        length = len(load_file(file)[f"{name}.codes"])
        assert length == sizes.get(name.removesuffix(".codec"), codec.packed_bytes)
        assert (length < 0.98 * codec.packed_bytes) == (length < codec.packed_bytes)
    with torch.device("meta"):
        empty = MODELS["masked-lm"][0]()
        entries = [entry.model_copy(update={"coded": None}) for entry in entries_of(folder)]
        install(empty, entries)
    saved = sum(codecs(model)[f"{name}.codec"].packed_bytes - sizes[name] for name in sizes)
    size = file.stat().st_size
    assert size == stored_bytes(model, "float16") <= stored_bytes(empty, "float16") - saved
    assert [entry.stored_size() for entry in entries_of(folder)] == [
        codec.stored_size() - max(0, codec.packed_bytes - sizes.get(name, codec.packed_bytes))
        if isinstance(codec, PackedCodec)
        else codec.stored_size()
        for name, codec in ((e.name, model.get_submodule(e.name).codec) for e in entries_of(folder))
    ]


def entries_of(folder):
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    return read_entries(config["layers"])


def test_saved_again_by_either_way_it_has_the_same_bytes(folder, tmp_path):
    load(folder).save_pretrained(tmp_path / "plain")
    save_compressed(load(folder), tmp_path / "again")
    for name in ("plain", "again"):
        assert coded(tmp_path / name) == coded(folder)
        written = (tmp_path / name / "model.safetensors").read_bytes()
        assert written == (folder / "model.safetensors").read_bytes()


def test_any_number_of_threads_gives_the_same_bytes(folder, tmp_path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            save_compressed(load(folder), tmp_path / str(threads))
    finally:
        torch.set_num_threads(before)
    files = [tmp_path / name / "model.safetensors" for name in ("1", "3")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_version_says_whether_an_old_reader_can_read_it(folder, tmp_path):
    def version(folder):
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        return config["format_version"]

    model, _ = make("bert")
    compress(model, only="intermediate")
    save_compressed(model, tmp_path / "packed")
    assert (version(tmp_path / "packed"), version(folder)) == (1, 2)
    assert not coded(tmp_path / "packed")
    assert all("coded" not in entry for entry in list_entries(model))


def test_weights_of_a_file_go_into_a_model_in_memory(folder):
    """As the Trainer resumes, and as it puts back the best of its checkpoints."""
    right, model = load(folder), load(folder)
    for codec in codecs(model).values():
        codec.put_codes(torch.zeros(codec.count, dtype=torch.int32))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    for name, codec in codecs(model).items():
        assert torch.equal(codec.codes, right.get_submodule(name).codes)
        assert torch.equal(codec.decode(), right.get_submodule(name).decode())


def test_a_state_dict_from_memory_makes_a_model(folder, model_and_inputs):
    model, inputs = model_and_inputs
    loaded = load(folder)
    state = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    config = AutoConfig.from_pretrained(folder)
    made = type(loaded).from_pretrained(None, config=config, state_dict=state)
    assert torch.equal(logits(made, inputs), logits(model, inputs))


def rewrite(folder, tensors, change):
    """Changes file and config as somebody might who knows about digests."""
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["sha256"] = {}
    change({layer["name"]: layer for layer in config["quantization_config"]["layers"]})
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("place", [0, 3, 20, -1])
def test_a_damaged_stream_is_refused_with_the_name_of_its_layer(copied, place):
    tensors = load_file(copied / "model.safetensors")
    tensors[f"{FIRST}.codec.codes"][place] ^= 16
    rewrite(copied, tensors, lambda layers: None)
    with pytest.raises(CheckpointError, match=f"layer {FIRST} is damaged: the coded stream"):
        load(copied)


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_a_short_stream_is_refused(copied, cut):
    tensors = load_file(copied / "model.safetensors")
    key = f"{FIRST}.codec.codes"
    tensors[key] = tensors[key][:-cut].clone()
    size = len(tensors[key])
    rewrite(copied, tensors, lambda layers: None)
    with pytest.raises(CheckpointError, match=rf"{FIRST}\.codec\.codes is U8 \[{size}\], expected"):
        load(copied)
    rewrite(copied, tensors, lambda layers: layers[FIRST].update(coded=size))
    with pytest.raises(CheckpointError, match=f"layer {FIRST} is damaged: the coded stream"):
        load(copied)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (1, "512 codes of 4 bits are not coded in 1 bytes"),  # what would claim any memory
        (256, "are not coded in 256 bytes"),
        (2**40, "coded"),
        (-1, "coded"),
        ("x", "coded"),
    ],
)
def test_an_impossible_size_is_refused(copied, size, message):
    tensors = load_file(copied / "model.safetensors")
    rewrite(copied, tensors, lambda layers: layers[FIRST].update(coded=size))
    with pytest.raises(CheckpointError, match=message):
        load(copied)


def test_a_method_without_codes_cannot_have_coded_ones(copied):
    tensors = load_file(copied / "model.safetensors")
    name = "bert.encoder.layer.0.attention.output.dense"
    rewrite(copied, tensors, lambda layers: layers[name].update(coded=9))
    with pytest.raises(CheckpointError, match=f"{name}: `lowrank` has no codes"):
        load(copied)
