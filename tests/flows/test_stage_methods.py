"""Quantizing as mapped tasks: budgets, sensitivities, methods, depth, from params to a file."""

import csv
import shutil

from safetensors.torch import load_file

from compress.params_yaml import load_params
from tasks.outputs import read_json
from tests.flows.workspaces import LAYERS, edit, quantize, stamps


def test_a_budget_is_kept_and_what_was_measured_is_not_measured_again(workspace):
    def spend(params):
        params["quantize"]["budget"] = {"ratio": 2.1}

    edit(workspace.root, spend)
    quantize(workspace)
    path = workspace.compressed / "model.safetensors"
    first = path.read_bytes()
    facts = read_json(workspace.metrics("quantize"))
    dense = facts["bytes_uncompressed"]
    assert len(first) == facts["bytes"] <= facts["budget"]["bytes"] <= dense / 2.1
    assert facts["budget"]["limit"] == int(dense / 2.1)
    with workspace.plot("allocation").open(newline="") as file:
        chosen = {row["name"]: row for row in csv.DictReader(file)}
    with workspace.plot("layers").open(newline="") as file:
        made = {row["name"]: row for row in csv.DictReader(file)}
    assert chosen.keys() == made.keys()
    saved = sum(int(row["bytes"]) - int(made[name]["bytes"]) for name, row in chosen.items())
    assert abs(facts["budget"]["bytes"] - facts["bytes"] - saved) < 100  # in the header
    for name, row in chosen.items():
        assert int(made[name]["bytes"]) <= int(row["bytes"])  # some codes are entropy-coded
        assert row["settings"].startswith(made[name]["method"])
        assert float(row["predicted_damage"]) > 0

    assert len({row["settings"] for row in chosen.values()}) > 1  # not those of params.yaml
    measured = sorted(workspace.layers.glob("*/*.json"))
    assert len(measured) == len(chosen) + 1  # and the sensitivity
    measured[0].write_text("{")
    before = {file: file.stat().st_mtime_ns for file in measured}
    quantize(workspace)
    again = [file for file in measured if file.stat().st_mtime_ns != before[file]]
    assert again == [measured[0]]
    assert path.read_bytes() == first


def test_errors_are_weighted_by_what_each_group_says(workspace):
    def weighted(params):
        params["quantize"]["sensitivity"] = "activations"
        params["quantize"]["groups"][1]["sensitivity"] = "fisher"

    def table():
        with workspace.plot("layers").open(newline="") as file:
            return {row["name"]: row for row in csv.DictReader(file)}

    quantize(workspace)
    plain, layers = table(), stamps(workspace)
    assert "sensitivity" not in next(iter(plain.values()))
    edit(workspace.root, weighted)
    quantize(workspace)
    rows = table()
    kinds = {"ffn": "activations", "attention": "fisher"}
    for name, row in rows.items():
        assert row["sensitivity"] == kinds[row["group"]]
        assert row["key"] != plain[name]["key"] and row["bytes"] == plain[name]["bytes"]
        assert 0 < float(row["weighted_distortion"]) < 1
        if row["group"] == "ffn":  # the same weights as before
            assert float(row["relative_distortion"]) != float(plain[name]["relative_distortion"])
    after = stamps(workspace)
    assert {name: after[name] for name in layers} == layers
    assert len(after) == 2 * len(layers) + 2  # and the two statistics

    first = {p.name: p.read_bytes() for p in workspace.compressed.iterdir()}
    (measured,) = (
        path
        for path in workspace.root.glob(LAYERS)
        if path.stem not in {row["key"] for row in rows.values()}
        and path.name not in layers
        and set(load_file(path)) == {name for name in rows if rows[name]["group"] == "ffn"}
    )
    whole = measured.read_bytes()
    measured.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for made in (workspace.compressed, workspace.work("quantize")):
        shutil.rmtree(made)
    quantize(workspace)
    assert measured.read_bytes() == whole, "measured again, to the same bytes"
    again = stamps(workspace)
    assert [name for name in after if again[name] != after[name]] == [measured.name]
    assert {p.name: p.read_bytes() for p in workspace.compressed.iterdir()} == first


def test_as_one_call_without_tasks_it_gives_the_same_bytes(workspace, tmp_path):
    from compress import ipq

    def change(params):
        params["quantize"]["budget"] = {"ratio": 2.1}
        learned = {"method": "adaround", "iterations": 20, "sensitivity": "fisher"}
        params["quantize"]["groups"][1] |= learned

    edit(workspace.root, change)
    quantize(workspace)
    found = ipq.quantize(
        load_params(workspace.params_file),
        teacher_dir=workspace.finetuned,
        data_dir=workspace.data,
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
    )
    file = workspace.compressed / "model.safetensors"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == file.read_bytes()
    metrics = read_json(workspace.metrics("quantize"))
    assert found.bytes == metrics["bytes"] == file.stat().st_size
    assert found.groups[-1]["score"] == metrics["groups"]["attention"]["score"]


def test_every_group_may_have_a_method_of_its_own(workspace):
    """Down to the report; a change of one method's settings leaves the layers of the others."""
    import compress  # noqa: F401 (teaches transformers to read it)
    from flows.stage_flows import FLOWS
    from tasks.report import write_report

    encoder = ("attention.**.query", "attention.**.key", "intermediate.dense", "output.dense")
    methods = {
        "query": {"method": "sparse", "bits": 3},
        "key": {"method": "lowrank", "rank": 4},
        "intermediate": {"method": "residual", "block_size": 4, "codebook_size": 8},
        "output": {"block_size": 2},  # product, as the section says
    }
    groups = [
        {"name": name, "layers": [f"**.layer.*.{layers}"], **settings}
        for (name, settings), layers in zip(methods.items(), encoder, strict=True)
    ]
    words = {"name": "words", "layers": ["**.word_embeddings"], "method": "subspace"}
    groups.append({**words, "subspaces": 2, "dimension": 4})
    edit(workspace.root, lambda params: params["quantize"].update(groups=groups))
    quantize(workspace)
    with workspace.plot("layers").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["group"]: row["method"] for row in rows} == {
        "query": "sparse",
        "key": "lowrank",
        "intermediate": "residual",
        "output": "product",
        "words": "subspace",
    }
    assert all(float(row["relative_distortion"]) < 1 for row in rows)
    FLOWS["evaluate"](str(workspace.root))
    params = load_params(workspace.params_file)
    write_report(workspace, params)
    before = stamps(workspace)

    edit(workspace.root, lambda params: params["quantize"]["groups"][0].update(bits=4))
    quantize(workspace)
    after = stamps(workspace)
    assert len(after) >= len(before) + 2  # the queries, and what was finetuned after them
    assert {name: after[name] for name in before} == before


def test_fewer_layers_from_training_to_the_file(workspace):
    """Two layers of one set of weights; then, without other training, one layer alone."""
    from flows.stage_flows import FLOWS

    def change(**values):
        edit(workspace.root, lambda params: params.update(values))

    change(depth={"share": 2})
    FLOWS["finetune"](str(workspace.root))
    quantize(workspace)
    shared = read_json(workspace.metrics("quantize"))
    assert shared["layers"] == 4  # of 8
    config = read_json(workspace.compressed / "config.json")
    assert config["num_hidden_layers"] == config["quantization_config"]["share"] == 2
    assert "2 adjacent layers share" in (workspace.compressed / "README.md").read_text()
    kept, file = stamps(workspace), workspace.compressed / "model.safetensors"
    first = file.read_bytes()
    quantize(workspace)
    assert stamps(workspace) == kept and file.read_bytes() == first

    change(depth={"prune": 2}, noise={"function": "mean", "layerdrop": 0.5})
    FLOWS["finetune"](str(workspace.root))
    quantize(workspace)
    FLOWS["evaluate"](str(workspace.root))
    pruned = read_json(workspace.metrics("evaluate"))
    assert read_json(workspace.metrics("quantize"))["layers"] == 4
    assert pruned["bytes_uncompressed"] == shared["bytes_uncompressed"]
    config = read_json(workspace.compressed / "config.json")
    assert config["num_hidden_layers"] == 1 and "share" not in config["quantization_config"]
