"""Streaming with the layer store: nothing finished is computed again, memory stays bounded."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from compress.errors import InputError
from compress.shards import ShardWriter, plan_shards, write_index
from tasks import streaming

SETTINGS = {"block_size": 4, "codebook_size": 64, "iterations": 4}

CHILD = """
import sys
from pathlib import Path
from tasks.streaming import stream
source, out, layers = map(Path, sys.argv[1:])
stream(source, out, {"block_size": 4, "codebook_size": 64, "iterations": 4}, seed=0, layers=layers)
"""

LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
import compress.codecs.product, compress.streaming
from compress.kmeans import fit
from compress.stream_plan import plan_stream
from tasks.streaming import stream
def mapped():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
fit(torch.randn(20000, 8), 256)  # compiles
source, out, layers = map(Path, sys.argv[1:4])
plan_stream(source, {}, out)  # imports the model
compress.codecs.product.WHOLE = 1 << 21
room, whole = int(sys.argv[4]), int(sys.argv[5])
limit = mapped() + room
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    torch.ones(whole, dtype=torch.uint8)
    sys.exit("the limit does not hold")
except RuntimeError:
    pass
stream(source, out, {"iterations": 2}, seed=0, layers=layers)
"""


def start(code: str, *args: object) -> subprocess.Popen:
    arenas = {
        "MALLOC_ARENA_MAX": "1"
    }  # each thread's would take 64 MB of addresses, none of memory
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=os.environ | arenas)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A tied Llama with 22 weights to compress, in shards."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="300KB")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_killed_at_any_tensor_no_finished_layer_is_computed_again(source, tmp_path, monkeypatch):
    whole = streaming.stream(source, tmp_path / "whole", SETTINGS, seed=0, layers=tmp_path / "a")
    assert (whole.layers, whole.found) == (22, 0)

    out, layers = tmp_path / "out", tmp_path / "b"
    goal = int.from_bytes(os.urandom(1)) % 15 + 1
    child = start(CHILD, source, out, layers)
    while len(list(layers.glob("*/*.safetensors"))) < goal and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    finished = len(list(layers.glob("*/*.safetensors")))
    assert goal <= finished < 22, goal

    again = streaming.stream(source, out, SETTINGS, seed=0, layers=layers)
    assert again.found == finished
    assert files(out) == files(tmp_path / "whole")
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_damaged_layer_is_computed_again(source, tmp_path):
    out, layers = tmp_path / "out", tmp_path / "layers"
    streaming.stream(source, out, SETTINGS, seed=0, layers=layers)
    before = files(out)
    damaged = sorted(layers.glob("*/*.safetensors"))[7]
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert streaming.stream(source, out, SETTINGS, seed=0, layers=layers).found == 21
    assert files(out) == before


def test_other_settings_seed_or_weights_are_other_layers(source, tmp_path):
    def found(settings, seed=0, weights=source):
        out = tmp_path / "out"
        return streaming.stream(weights, out, settings, seed=seed, layers=tmp_path / "l").found

    assert found(SETTINGS) == 0
    assert found(SETTINGS) == 22
    assert found(SETTINGS, seed=1) == 0
    assert found(SETTINGS | {"iterations": 3}) == 0
    model = AutoModelForCausalLM.from_pretrained(source)
    model.model.layers[2].mlp.up_proj.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path / "changed")
    assert found(SETTINGS, weights=tmp_path / "changed") == 21


def test_the_numbers_of_a_run_add_up(source, tmp_path):
    done = streaming.stream(source, tmp_path / "out", SETTINGS, seed=0, layers=tmp_path / "l")
    original = AutoModelForCausalLM.from_pretrained(source)
    assert done.bytes_before == sum(p.numel() * 4 for p in original.parameters())
    assert done.bytes_after == (tmp_path / "out/model.safetensors").stat().st_size
    assert done.largest == 500 * 64 * 4
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    error = energy = 0.0
    for name, module in loaded.named_modules():
        if hasattr(module, "codec") and not module.tied:
            weight = original.get_submodule(name).weight.detach()
            error += float((weight - module.weight.detach()).square().sum())
            energy += float(weight.square().sum())
    assert done.relative_distortion == pytest.approx(error / energy, rel=1e-4)


@pytest.mark.slow
def test_a_checkpoint_larger_than_the_memory_that_is_left(tmp_path):
    """190 MB of weights, 150 MB of address space beyond the program: RLIMIT_AS counts all."""
    source = tmp_path / "source"
    large_llama(source)
    size = sum(f.stat().st_size for f in source.glob("*.safetensors"))
    room = 150_000_000
    assert size > 1.2 * room
    assert start(LIMITED, source, tmp_path / "out", tmp_path / "layers", room, size).wait() == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert len(config["quantization_config"]["layers"]) == 8
    assert sum(f.stat().st_size for f in (tmp_path / "out").glob("*.safetensors")) < size / 14


def large_llama(folder: Path) -> None:
    """One layer of a Llama with 95 million weights in bf16, in shards of 60 MB."""
    folder.mkdir()
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=18000,
        num_hidden_layers=1,
        num_attention_heads=8,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
        dtype=torch.bfloat16,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        tensors = AutoModelForCausalLM.from_config(config).state_dict()
    del tensors["lm_head.weight"]
    parts = [{name: (torch.bfloat16, tuple(t.shape))} for name, t in tensors.items()]
    shards = plan_shards(parts, 60_000_000)
    for shard in shards:
        with ShardWriter(folder / shard.name, shard.layout) as writer:
            for name, (dtype, shape) in shard.layout.items():
                writer.write(name, torch.randn(shape).mul_(0.02).to(dtype))
    write_index(folder, shards)


def test_settings_come_from_the_section_quantize(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("quantize: {block_size: 4}\nmodel: {source: x}\nseed: 3\n")
    overrides = ["quantize.codebook_size=16"]
    settings, seed = streaming.stream_settings(path, overrides)
    assert (settings, seed) == ({"block_size": 4, "codebook_size": 16}, 3)
    assert streaming.stream_settings(None, overrides) == ({"codebook_size": 16}, 0)


@pytest.mark.parametrize("text", ["quantise: {}", "[1]", "a: [", "quantize: 3", "seed: x"])
def test_what_is_no_params_file_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        streaming.stream_settings(path, ())
