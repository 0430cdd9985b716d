"""Streaming quantization: the same model as in memory, sharded, and every problem up front."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from compress.checkpoint import save_compressed
from compress.codecs import codec_class
from compress.errors import InputError, PlanError
from compress.replacement import replace
from compress.selection import weight_of
from compress.stream_plan import plan_stream
from compress.streaming import compress_stream_layer, look_through, write_stream
from tests.compress.codecs.test_every_method import each_method
from tests.compress.models import MODELS, make

SETTINGS = {"block_size": 4, "codebook_size": 16}


def saved(name, folder, dtype=torch.float32):
    """A model in shards of 20 kB, and its class."""
    model, _ = make(name)
    model.to(dtype).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return type(model)


def stream(source, out, settings=SETTINGS, shard_bytes=4000):
    """Streams with layer files beside `out`; the plan."""
    plan = plan_stream(source, settings, out)

    def layer_file(job):
        path = out.parent / "layers" / f"{job.layer.ref.name}.safetensors"
        compress_stream_layer(job, seed=3, out_path=path)
        return path

    written = write_stream(plan, look_through(plan), out, layer_file, shard_bytes=shard_bytes)
    assert written == sum(f.stat().st_size for f in out.glob("*.safetensors"))
    return plan


def in_memory(cls, source, plan, out):
    """The ordinary way: load all of it, replace the same layers, save."""
    model = cls.from_pretrained(source)
    for job in plan.layers:
        ref, settings = job.layer.ref, job.layer.settings
        codec, _ = codec_class(settings.method).fit(weight_of(model, ref), settings, seed=3)
        replace(model, ref, codec)
    save_compressed(model, out, rest=plan.precision)


@pytest.mark.parametrize(
    ("name", "dtype", "rest"),
    [
        ("bert", torch.float32, "float16"),
        ("bert", torch.float32, "float32"),
        ("masked-lm", torch.float32, "float16"),
        ("llama", torch.float32, "float16"),
        ("llama", torch.bfloat16, "float16"),
        ("gpt2", torch.float16, "float16"),
        ("resnet", torch.float32, "float16"),
    ],
)
def test_streamed_and_in_memory_are_one_model(name, dtype, rest, tmp_path):
    cls = saved(name, tmp_path / "source", dtype)
    plan = stream(tmp_path / "source", tmp_path / "out", SETTINGS | {"rest": rest})
    in_memory(cls, tmp_path / "source", plan, tmp_path / "ordinary")
    streamed, ordinary = (
        cls.from_pretrained(tmp_path / name, dtype=dtype).eval() for name in ("out", "ordinary")
    )
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    states = streamed.state_dict(), ordinary.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with torch.no_grad():
        inputs = MODELS[name][1]()
        assert torch.equal(streamed(**inputs).logits, ordinary(**inputs).logits)
    layers = [
        read_config(tmp_path / n)["quantization_config"]["layers"] for n in ("out", "ordinary")
    ]
    key = lambda entry: entry["name"]  # noqa: E731
    assert sorted(layers[0], key=key) == sorted(layers[1], key=key)


def test_parts_of_a_weight_that_lies_the_other_way_around(tmp_path):
    cls = saved("gpt2", tmp_path / "source")
    dense = cls.from_pretrained(tmp_path / "source")
    turned = [
        job
        for job in plan_stream(tmp_path / "source", SETTINGS, tmp_path / "out").layers
        if job.layer.ref.transposed
    ]
    assert turned
    for job in turned:
        assert torch.equal(job.rows(3, 7), weight_of(dense, job.layer.ref)[3:7])


@each_method
def test_every_method_is_streamed_unless_it_needs_data(method, settings, tmp_path):
    cls = saved("llama", tmp_path / "source")
    codec = codec_class(method)
    if codec.needed(codec.Settings.model_validate(settings | {"method": method})) is not None:
        with pytest.raises(InputError, match=f"{method} looks at .*sees no data"):
            plan_stream(tmp_path / "source", settings | {"method": method}, tmp_path / "out")
        return
    plan = stream(tmp_path / "source", tmp_path / "out", settings | {"method": method})
    assert plan.layers
    loaded, dense = (cls.from_pretrained(tmp_path / name) for name in ("out", "source"))
    for job in plan.layers:
        weight = weight_of(dense, job.layer.ref)
        codec, _ = codec_class(method).fit(weight, job.layer.settings, seed=3)
        assert torch.equal(loaded.get_submodule(job.layer.ref.name).weight, codec.decode())


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_tied_head_stays_tied_and_is_stored_once(tmp_path):
    saved("llama", tmp_path / "source")
    stream(tmp_path / "source", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.codec is model.model.embed_tokens.codec
    weight_map = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())[
        "weight_map"
    ]
    assert "model.embed_tokens.codec.codes" in weight_map
    assert not any(key.startswith("lm_head") for key in weight_map)


def test_the_same_inputs_give_the_same_bytes_in_one_file_or_many(tmp_path):
    saved("bert", tmp_path / "source")
    for name in ("a", "b"):
        stream(tmp_path / "source", tmp_path / name / "out")
    files = sorted(p.name for p in (tmp_path / "a/out").iterdir())
    for name in files:
        assert (tmp_path / "a/out" / name).read_bytes() == (tmp_path / "b/out" / name).read_bytes()
    stream(tmp_path / "source", tmp_path / "one", shard_bytes=1 << 20)
    one = load_file(tmp_path / "one/model.safetensors")
    many = {}
    for path in (tmp_path / "a/out").glob("*.safetensors"):
        many |= load_file(path)
    assert one.keys() == many.keys() and all(torch.equal(one[key], many[key]) for key in one)


def test_tokenizer_files_come_along_and_weights_do_not(tmp_path):
    saved("bert", tmp_path / "source")
    (tmp_path / "source/tokenizer.json").write_text("{}")
    (tmp_path / "source/vocab.txt").write_text("a")
    (tmp_path / "source/pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "source/pytorch_model.bin.index.json").write_text("{}")
    stream(tmp_path / "source", tmp_path / "out", shard_bytes=1 << 20)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}


def test_groups_select_as_in_the_pipeline(tmp_path):
    saved("bert", tmp_path / "source")
    groups = [{"name": "ffn", "layers": ["**.intermediate.dense"], "block_size": 8}]
    plan = stream(tmp_path / "source", tmp_path / "out", SETTINGS | {"groups": groups})
    names = [job.layer.ref.name for job in plan.layers]
    assert names == [f"bert.encoder.layer.{i}.intermediate.dense" for i in range(2)]
    assert {job.layer.settings.block_size for job in plan.layers} == {8}


def problems(source, out, settings=SETTINGS):
    with pytest.raises(PlanError) as caught:
        look_through(plan_stream(source, settings, out))
    return str(caught.value)


def test_a_sensitivity_is_refused(tmp_path):
    saved("bert", tmp_path / "source")
    settings = SETTINGS | {"sensitivity": "fisher"}
    with pytest.raises(InputError, match=r"sees no data.*-S quantize.sensitivity=none"):
        plan_stream(tmp_path / "source", settings, tmp_path / "out")


def test_a_budget_is_refused(tmp_path):
    saved("bert", tmp_path / "source")
    settings = SETTINGS | {"budget": {"ratio": 20}}
    with pytest.raises(InputError, match=r"keeps no budget.*-S quantize.budget=null"):
        plan_stream(tmp_path / "source", settings, tmp_path / "out")


def shard_with(folder, key):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / index["weight_map"][key]


QUERY = "bert.encoder.layer.0.attention.self.query.weight"


def test_all_problems_are_listed_at_once(tmp_path):
    source = tmp_path / "source"
    saved("bert", source)
    shards = sorted(source.glob("*.safetensors"))
    for shard in shards[:2]:
        shard.write_bytes(shard.read_bytes()[:-1])
    groups = [
        {"name": "none", "layers": ["**.nothing"]},
        {"name": "odd", "layers": ["**.query"], "block_size": 5},
    ]
    message = problems(source, source, SETTINGS | {"groups": groups})
    for word in (
        shards[0].name,
        shards[1].name,
        "**.nothing",
        "block size 5",
        "replace its source",
    ):
        assert word in message
    assert not (tmp_path / "out").exists()


def test_what_a_shard_lacks_or_has_in_another_shape_is_a_problem(tmp_path):
    source = tmp_path / "source"
    saved("bert", source)
    path = shard_with(source, QUERY)
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != QUERY}, path)
    assert f"{path.name} lacks {QUERY}" in problems(source, tmp_path / "out")
    save_file(tensors | {QUERY: torch.zeros(32, 16)}, path)
    assert "config.json says (32, 32)" in problems(source, tmp_path / "out")


def test_missing_shards_are_a_problem_beside_the_others(tmp_path):
    source = tmp_path / "source"
    saved("bert", source)
    gone = sorted(source.glob("*.safetensors"))[:2]
    for shard in gone:
        shard.unlink()
    groups = [{"name": "none", "layers": ["**.nothing"]}]
    message = problems(source, tmp_path / "out", SETTINGS | {"groups": groups})
    for word in (gone[0].name, gone[1].name, "**.nothing"):
        assert word in message


@pytest.mark.parametrize(("value", "word"), [(torch.nan, "NaN"), (torch.inf, "Inf"), (1e6, "fp16")])
def test_values_that_cannot_be_clustered_are_found_before_work_starts(tmp_path, value, word):
    source = tmp_path / "source"
    saved("bert", source)
    path = shard_with(source, QUERY)
    tensors = load_file(path)
    tensors[QUERY][3, 3] = value
    save_file(tensors, path)
    message = problems(source, tmp_path / "out")
    assert QUERY in message and word in message


def test_too_little_disk_or_memory_is_a_problem(tmp_path, monkeypatch):
    saved("bert", tmp_path / "source")
    monkeypatch.setattr("compress.estimates.free_memory", lambda: 1000)
    monkeypatch.setattr(
        "compress.resources.shutil.disk_usage", lambda place: SimpleNamespace(free=9)
    )
    message = problems(tmp_path / "source", tmp_path / "out")
    assert "of memory are needed" in message and "of disk are needed" in message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architectures": None}, "names no model"),
        ({"architectures": ["NoModelAtAll"]}, "NoModelAtAll"),
        ({"quantization_config": {"quant_method": "x"}}, "quantized already"),
        ({"model_type": "unknown"}, "can be made"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(tmp_path, change, word):
    source = tmp_path / "source"
    saved("bert", source)
    (source / "config.json").write_text(json.dumps(read_config(source) | change))
    with pytest.raises(InputError, match=word):
        plan_stream(source, SETTINGS, tmp_path / "out")


def test_settings_are_checked(tmp_path):
    saved("bert", tmp_path / "source")
    with pytest.raises(InputError, match="blok_size: unknown key"):
        plan_stream(tmp_path / "source", {"blok_size": 3}, tmp_path / "out")


def test_large_values_that_are_copied_keep_their_precision(tmp_path):
    source = tmp_path / "source"
    saved("bert", source)
    key = "bert.pooler.dense.bias"
    path = shard_with(source, key)
    save_file(load_file(path) | {key: torch.full((32,), 1e6)}, path)
    stream(source, tmp_path / "out", shard_bytes=1 << 20)
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert tensors[key].dtype == torch.float32 and float(tensors[key][0]) == 1e6
    assert tensors["classifier.bias"].dtype == torch.float16
