"""Cache keys: equal work has equal keys, and everything that matters makes a difference."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from compress.codecs.product_settings import CodebookConfig
from compress.config import Params
from compress.quantization import read_tensor
from compress.seeds import layer_seed
from tasks import caching
from tasks.layers import _name_of

SHA = st.binary(min_size=4, max_size=4).map(lambda b: hashlib.sha256(b).hexdigest())
SHAPES = st.lists(st.integers(1, 4096), min_size=2, max_size=4)
SETTINGS = st.builds(
    CodebookConfig,
    block_size=st.integers(1, 64),
    codebook_size=st.integers(2, 65536),
    row_scale=st.booleans(),
    iterations=st.integers(1, 100),
    seeding=st.sampled_from(["random", "kmeans++", "partition"]),
    empties=st.sampled_from(["perturb", "partition"]),
)
INPUTS = st.fixed_dictionaries(
    {
        "weight": SHA,
        "shape": SHAPES,
        "settings": SETTINGS,
        "seed": st.integers(0, 2**63 - 1),
        "code": SHA,
    }
)


@given(INPUTS, INPUTS)
def test_layer_keys_are_equal_exactly_where_the_inputs_are(one, other):
    same = {**one, "settings": one["settings"].model_copy(), "shape": tuple(one["shape"])}
    assert caching.layer_key(**one) == caching.layer_key(**same)
    for name in one:
        changed = caching.layer_key(**{**one, name: other[name]})
        assert (changed == caching.layer_key(**one)) == (one[name] == other[name])


@given(st.integers(0, 2**31), st.text(min_size=1), st.text(min_size=1))
def test_layer_seeds_follow_from_the_name_alone(seed, name, other):
    assert layer_seed(seed, name) == layer_seed(seed, name)
    assert 0 <= layer_seed(seed, name) < 2**63
    assert (layer_seed(seed, name) == layer_seed(seed, other)) == (name == other)


def test_every_setting_of_a_codec_is_in_the_key():
    one = CodebookConfig()
    values = {
        "block_size": 4,
        "codebook_size": 128,
        "row_scale": True,
        "iterations": 3,
        "seeding": "random",
        "empties": "perturb",
        "relaxation": 1.0,
        "consolidation": "off",
    }
    given_ = {"weight": "w", "shape": (8, 8), "seed": 0, "code": "c"}
    keys = {caching.layer_key(settings=one, **given_)}
    for name, value in values.items():
        keys.add(caching.layer_key(settings=one.model_copy(update={name: value}), **given_))
    assert len(keys) == 1 + len(values)


def test_a_sensitivity_makes_another_layer_and_none_makes_no_difference():
    given_ = {"weight": "w", "shape": (8, 8), "settings": CodebookConfig(), "seed": 0, "code": "c"}
    without = caching.layer_key(**given_)
    assert caching.layer_key(**given_, sensitivity=None) == without
    names = [_name_of(t) for t in (torch.ones(1, 4), torch.ones(4, 1), torch.zeros(1, 4))]
    keys = {caching.layer_key(**given_, sensitivity=name) for name in names}
    assert len(keys | {without}) == 4
    assert _name_of(torch.ones(1, 4)) == names[0]


def test_a_tensor_is_named_by_its_values_not_by_its_file(tmp_path):
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    save_file({"a": weight, "rest": torch.zeros(3)}, tmp_path / "one.safetensors")
    save_file({"b": weight.clone()}, tmp_path / "two.safetensors")
    changed = weight.clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(10.0))
    save_file({"b": changed}, tmp_path / "three.safetensors")

    def name(file, tensor):
        return caching.hash_values(read_tensor(tmp_path / f"{file}.safetensors", tensor))

    assert name("one", "a") == name("two", "b")
    assert name("one", "a") != name("three", "b")


def test_a_folder_is_named_by_names_and_contents(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "inner").mkdir(parents=True)
        (tmp_path / folder / "inner" / "a").write_text("x")
    assert caching.hash_folder(tmp_path / "one") == caching.hash_folder(tmp_path / "two")
    (tmp_path / "two" / "inner" / "a").rename(tmp_path / "two" / "inner" / "b")
    assert caching.hash_folder(tmp_path / "one") != caching.hash_folder(tmp_path / "two")


@pytest.fixture
def params():
    text = {"source": "x.csv"}
    return Params.model_validate(
        {
            "model": {"source": "m"},
            "data": {**text, "holdout": 3},
            "pretrain": {"data": text},
            "quantize": {"groups": [{"name": "ffn", "layers": ["**"]}]},
        }
    )


def change(params, section, **values):
    node = params
    *parents, last = section.split(".")
    if parents:
        node = getattr(params, parents[0])
        inner = getattr(node, last).model_copy(update=values)
        return params.model_copy(update={parents[0]: node.model_copy(update={last: inner})})
    return params.model_copy(update={last: getattr(params, last).model_copy(update=values)})


def with_group(params, **values):
    """The params with other settings of their only group."""
    groups = [params.quantize.groups[0].model_copy(update=values)]
    return change(params, "quantize", groups=groups)


def test_a_group_is_redone_for_its_finetuning_and_not_for_the_number_of_workers(params):
    [group] = [entry.name for entry in params.quantize.groups]

    def key(p, before="b", layers=None):
        return caching.group_key(group=group, before=before, layers=layers or {"a": "1"}, params=p)

    assert key(params) == key(change(params, "quantize", workers=7))
    assert key(params) == key(change(params, "finetune", epochs=9))
    assert key(params) != key(change(params, "quantize.finetune", temperature=9.0))
    assert key(params) != key(with_group(params, finetune={"temperature": 9.0}))
    assert key(params) != key(params, before="c")
    assert key(params) != key(params, layers={"a": "2"})


def test_unfinished_training_is_resumed_only_by_equal_training(params):
    def key(p, inputs=None, stage="finetune"):
        return caching.training_key(stage, p, inputs or {"model": "m"})

    assert key(params) == key(change(params, "quantize", iterations=15))
    assert key(params) == key(change(params, "gate", max_drop=9.0))
    assert key(params) != key(change(params, "finetune", epochs=9))
    assert key(params) != key(change(params, "noise", rate=0.2))
    assert key(params) != key(change(params, "quantize", block_size=4))
    own = change(params, "noise", block_size=8)
    assert key(params) != key(own)
    assert key(own) == key(change(own, "quantize", block_size=4))
    assert key(params) == key(with_group(params, block_size=4, codebook_size=16, name="other"))
    assert key(params) != key(with_group(params, layers=["**.dense"]))
    assert key(params) != key(params, {"model": "n"})
    assert key(params) != key(params, stage="pretrain")


def test_the_version_of_a_stage_changes_only_with_what_it_depends_on(params):
    version = caching.stage_version
    assert version("finetune", params) == version("finetune", change(params, "gate", max_drop=1.0))
    assert version("register", params) != version("register", change(params, "gate", max_drop=1.0))
    assert version("pretrain", params) != version("finetune", params)
    other = with_group(params, block_size=4)
    assert version("finetune", params) == version("finetune", other)
    assert version("quantize", params) != version("quantize", other)
