"""Training in two processes that share every batch; on the CPU here, over GPUs by accelerate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from compress import training
from compress.config import Params
from compress.errors import InputError
from compress.launch import launched
from compress.training_state import MARKER

STEPS = 4


@pytest.fixture
def finetune(small_params, finetuned: Path, roberta_folder: Path):
    """finetune(out, processes) -> the facts of the training."""

    def run(out: Path, processes: int) -> dict[str, Any]:
        raw = small_params | {"compute": {"processes": processes}}
        raw["finetune"] = {"max_steps": STEPS, "batch_size": 8, "checkpoint_steps": 2}
        raw["noise"] = {"refresh_steps": 2}
        return launched(
            training.finetune,
            Params.model_validate(raw),
            model_dir=roberta_folder,
            data_dir=finetuned / "data",
            out_dir=out,
            work_dir=out.with_name(f"{out.name}-work"),
        )

    return run


def test_two_processes_train_one_model(finetune, tmp_path, roberta_folder):
    alone, together = finetune(tmp_path / "one", 1), finetune(tmp_path / "two", 2)
    assert together.keys() == alone.keys()
    assert together["steps"] == alone["steps"] == STEPS
    work = tmp_path / "two-work"
    assert len(list(work.glob(f"checkpoint-*/{MARKER}"))) == 2
    assert len(list(work.glob(f"checkpoint-{STEPS}/rng_state_*.pth"))) == 2  # both took part
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = load_file(roberta_folder / "model.safetensors")
    assert one.keys() == two.keys()
    name = "roberta.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(two[name], start[name])
    # Mean gradients of halves of a batch are those of the batch: only the noise differs.
    assert torch.allclose(two[name], one[name], atol=1e-3)


def test_what_a_process_says_reaches_the_caller(finetune, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and holds no config.json"):
        finetune(tmp_path / "taken", 2)


def test_a_batch_that_does_not_divide_is_refused(small_params):
    with pytest.raises(ValueError, match="pretrain.batch_size 8 does not divide"):
        Params.model_validate(small_params | {"compute": {"processes": 3}})
