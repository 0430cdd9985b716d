"""A decoder through the whole pipeline: planned, run, found up to date, served by MLflow."""

import json
import math
import shutil

import pandas as pd
import pytest
import yaml

from compress.params_yaml import load_params
from tasks.tracking.connection import connected
from tasks.workspace import workspace_of
from tests.decoders import decoder_params, text, write_decoder
from tests.flows.workspaces import call, marks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_server")]


def test_gpt2_from_params_to_registry(tmp_path, prefect_home):
    write_decoder(tmp_path / "model")
    rows = [json.dumps(row) for row in text(160)]
    (tmp_path / "rows.csv").write_text("\n".join(["text", *rows]) + "\n")
    params = decoder_params("model", "rows.csv")
    params["finetune"]["max_steps"], params["quantize"]["finetune"]["max_steps"] = 30, 6
    params["quantize"] |= {"budget": {"ratio": 4}, "groups": params["quantize"]["groups"][:1]}
    params |= {"gate": {"max_drop": 40.0, "min_ratio": 2.0}, "tracking": {"model_name": "writer"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(prefect_home, tmp_path / ".shrinkflow" / "prefect")

    planned = call(tmp_path, "shrinkflow", "plan")
    assert planned.returncode == 0, planned.stderr
    assert "transformer.h.1.attn.c_attn" in planned.stdout
    assert not any(marks(call(tmp_path, "shrinkflow", "run")).values())
    assert all(marks(call(tmp_path, "shrinkflow", "run")).values())

    metrics = json.loads((tmp_path / "artifacts/metrics/evaluate.json").read_text())
    before, after = metrics["score_uncompressed"], metrics["score"]
    assert metrics["metric"] == "perplexity" and min(before, after) > 1
    assert metrics["drop"] == pytest.approx(100 * math.log(after / before))
    card = (tmp_path / "artifacts/compressed/README.md").read_text()
    assert "AutoModelForCausalLM.from_pretrained" in card and "Classes" not in card
    assert "drop, log points" in (tmp_path / "artifacts/report.html").read_text()

    decision = json.loads((tmp_path / "artifacts/metrics/register.json").read_text())
    assert decision["alias"] == "champion", decision["reason"]
    import mlflow

    workspace = workspace_of(tmp_path / "params.yaml")
    with connected(workspace, load_params(tmp_path / "params.yaml")):
        model = mlflow.pyfunc.load_model("models:/writer@champion")
        found = model.predict(pd.DataFrame({"text": ["a film", "the story was good"]}))
    assert list(found.columns) == ["continuation", "perplexity"]
    assert (found["perplexity"] > 1).all() and found["continuation"].str.len().gt(0).all()
