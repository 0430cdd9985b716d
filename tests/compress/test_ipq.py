"""The stage `quantize` as one call: the file, its budget, what a second call finds."""

import dataclasses

import pytest
import torch

from compress import ipq, quantization
from compress.config import Params
from compress.errors import InputError
from compress.evaluation import evaluate
from compress.loading import load_model
from compress.stack import share_of


@pytest.fixture
def call(tmp_path, finetuned):
    def quantize(raw, out="out", **options):
        return ipq.quantize(
            Params.model_validate(raw),
            teacher_dir=finetuned / "finetuned",
            data_dir=finetuned / "data",
            out_dir=tmp_path / out,
            work_dir=tmp_path / f"work-{out}",
            measured_dir=tmp_path / "measured",
            **options,
        )

    return quantize


def test_a_call_that_was_stopped_goes_on_with_its_group(tmp_path, call, small_params, monkeypatch):
    whole = call(small_params)
    file = tmp_path / "out" / "model.safetensors"
    assert whole.bytes == file.stat().st_size
    assert [group["group"] for group in whole.groups] == ["ffn", "embeddings"]
    assert len(whole.reports) == 5
    recovered, recover = [], quantization.recover

    def stopping(params, group, **options):
        recovered.append(group)
        if recovered == ["ffn", "embeddings"]:
            raise KeyboardInterrupt
        return recover(params, group, **options)

    monkeypatch.setattr(quantization, "recover", stopping)
    with pytest.raises(KeyboardInterrupt):
        call(small_params, "again")
    again = call(small_params, "again")
    assert recovered == ["ffn", "embeddings", "embeddings"]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == file.read_bytes()

    def same(found):
        reports = {n: r | {"seconds": 0} for n, r in found.reports.items()}
        return dataclasses.replace(found, seconds=0.0, reports=reports)

    assert same(again) == same(whole)


def test_a_group_takes_the_steps_that_it_asks_for(call, small_params):
    small_params["quantize"]["finetune"]["max_steps"] = 10
    small_params["quantize"]["groups"][1]["finetune"] = {"max_steps": 20}
    ffn, embeddings = call(small_params).groups
    assert [ffn["curve"][-1]["step"], embeddings["curve"][-1]["step"]] == [10, 20]


def test_post_training_trains_nothing(tmp_path, call, small_params, finetuned, monkeypatch):
    monkeypatch.setattr(quantization, "recover", None)
    layers = [name for group in small_params["quantize"]["groups"] for name in group["layers"]]
    scores = {}
    for bits in (8, 2):
        small_params["quantize"] = {
            "method": "uniform", "bits": bits, "groups": [{"name": "all", "layers": layers}],
        }  # fmt: skip
        found = call(small_params, f"int{bits}", finetune=False)
        assert not found.groups
        assert found.bytes == (tmp_path / f"int{bits}" / "model.safetensors").stat().st_size
        data = finetuned / "data"
        scores[bits] = evaluate(tmp_path / f"int{bits}", data, "accuracy")["score"]
    dense = evaluate(finetuned / "finetuned", finetuned / "data", "accuracy")["score"]
    assert scores[8] == pytest.approx(dense, abs=2)


def test_a_budget_is_kept_and_measured_once(tmp_path, call, small_params, monkeypatch):
    small_params["quantize"]["finetune"]["max_steps"] = 2
    limit = 0.052
    small_params["quantize"]["budget"] = {"megabytes": limit}
    first = call(small_params)
    assert first.bytes <= first.allocation.limit == int(limit * 1e6)
    monkeypatch.setattr("compress.measuring.measure", None)
    small_params["quantize"]["budget"] = {"megabytes": 0.95 * limit}
    assert call(small_params, "less").bytes < first.bytes


def test_a_sensitivity_weights_the_groups_that_ask_for_it(call, small_params, monkeypatch):
    small_params["quantize"]["finetune"]["max_steps"] = 2
    plain = call(small_params).reports
    small_params["quantize"]["groups"][0]["sensitivity"] = "fisher"
    weighed = call(small_params, "weighed").reports
    for name, report in plain.items():
        assert (weighed[name]["weighted_distortion"] is not None) == ("dense" in name)
        if "dense" in name:
            assert weighed[name]["relative_distortion"] > report["relative_distortion"]
    monkeypatch.setattr("compress.measuring.measure_sensitivity", None)  # it is kept
    small_params["quantize"]["groups"][0]["codebook_size"] = 8
    call(small_params, "again")


def test_rounding_is_learned_from_what_flows_through_the_layers(call, small_params, monkeypatch):
    quantize = small_params["quantize"]
    quantize.pop("codebook_size")
    quantize["groups"][0].pop("block_size")
    quantize |= {"method": "adaround", "bits": 3, "iterations": 60}
    found = call(small_params, finetune=False).reports
    assert len(found) == 5
    for report in found.values():
        assert report["output_distortion"] < 0.9 * report["output_distortion_nearest"]
    monkeypatch.setattr("compress.measuring.measure_sensitivity", None)  # it is kept
    quantize["bits"] = 2
    call(small_params, "again", finetune=False)


def test_neurons_are_pruned_and_what_stays_is_finetuned(tmp_path, call, small_params):
    quantize = small_params["quantize"]
    group = quantize["groups"][0] | {"method": "neurons", "importance": "information"}
    quantize["groups"] = [{key: value for key, value in group.items() if key != "block_size"}]
    quantize["finetune"]["max_steps"] = 2
    found, before = call(small_params), call(small_params, "before", finetune=False)
    assert len(found.groups) == 1 and found.bytes == before.bytes
    name = "roberta.encoder.layer.1.{}.dense.codec"
    model, untrained = load_model(tmp_path / "out"), load_model(tmp_path / "before")
    first, second = (model.get_submodule(name.format(part)) for part in ("intermediate", "output"))
    assert torch.equal(first.neurons, second.neurons) and len(first.neurons) == 32
    goes = sorted(set(range(64)) - set(first.neurons.tolist()))
    assert not first.decode()[goes].any() and not second.decode()[:, goes].any()
    start = untrained.get_submodule(name.format("output"))
    assert second.shift.any() and torch.equal(second.shift, start.shift)
    assert not torch.equal(second.weights, start.weights)
    quantize["budget"] = {"megabytes": 0.95e-6 * before.bytes}
    spent = call(small_params, "less", finetune=False)
    assert spent.bytes <= spent.allocation.limit
    keeps = {name: settings.keep for name, settings in spent.allocation.settings.items()}
    for i in (0, 1):
        layer = f"roberta.encoder.layer.{i}"
        assert keeps[f"{layer}.intermediate.dense"] == keeps[f"{layer}.output.dense"] <= 0.5


def test_layers_that_cannot_be_compressed_so_are_named(call, small_params):
    small_params["quantize"]["groups"][0]["block_size"] = 7
    with pytest.raises(InputError, match=r"intermediate\.dense .*group ffn.*7"):
        call(small_params)


def test_fewer_layers_are_recovered_against_all_of_the_teacher(tmp_path, call, small_params):
    """The teacher has two layers: they become one set of weights, or one of them goes."""
    small_params["quantize"]["finetune"]["max_steps"] = 2
    small_params["quantize"]["sensitivity"] = "activations"
    small_params["quantize"]["budget"] = {"ratio": 4.0}
    dense = {}
    for name, depth in {"shared": {"share": 2}, "pruned": {"prune": 2}, "whole": {}}.items():
        found = call(small_params | {"depth": depth}, name)
        file = tmp_path / name / "model.safetensors"
        assert found.bytes == file.stat().st_size <= found.allocation.limit
        dense[name] = found.allocation.limit
        model = load_model(tmp_path / name)
        left = len(model.roberta.encoder.layer)
        assert left == model.config.num_hidden_layers == 2 - (name == "pruned")
        assert share_of(model) == 1 + (name == "shared")
        layers = {n.split(".")[3] for n in found.reports if ".layer." in n}
        assert layers == {"0", "1"} if name == "whole" else layers == {"0"}
        assert len(found.reports) == 5 if name == "whole" else len(found.reports) == 3
    assert len(set(dense.values())) == 1  # a ratio counts against the whole model
