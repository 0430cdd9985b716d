"""Training the small RoBERTa: it learns, repeats to the byte and resumes to the same bytes."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

from compress import data, training
from compress.config import Params
from compress.errors import ShrinkflowError
from compress.evaluation import evaluate
from compress.training_state import MARKER, last_checkpoint, write_marker


@pytest.fixture
def prepared(tmp_path, small_params):
    def build(**changes) -> Params:
        for section, values in changes.items():
            small_params[section] |= values
        params = Params.model_validate(small_params)
        data.prepare(params, Path(), tmp_path / "data")
        return params

    return build


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def run(params: Params, tmp_path: Path, name: str, work: Path | None = None) -> Path:
    out = tmp_path / name
    model = Path(params.model.source)
    training.finetune(params, model, tmp_path / "data", out, work or tmp_path / f"work-{name}")
    return out


def test_finetuning_learns(tmp_path, prepared):
    params = prepared(noise={"rate": 0.05})
    out = run(params, tmp_path, "a")
    assert evaluate(out, tmp_path / "data", "accuracy")["score"] > 85
    config = AutoModelForSequenceClassification.from_pretrained(out).config
    assert config.id2label == {0: "0", 1: "1"}


def test_same_seed_same_bytes_other_seed_others(tmp_path, prepared):
    params = prepared(finetune={"max_steps": 6})
    first, second = run(params, tmp_path, "a"), run(params, tmp_path, "b")
    other = run(params.model_copy(update={"seed": 1}), tmp_path, "c")
    assert weights(first) == weights(second) != weights(other)


class Killed(Exception):
    """Stands for a process that dies: nothing of ours catches it."""


@pytest.mark.parametrize(("function", "share"), [("codebook", 1), ("zero", 2)])
def test_resumed_run_ends_with_the_same_bytes(
    tmp_path, prepared, small_params, monkeypatch, function, share
):
    small_params["depth"] = {"share": share}
    params = prepared(
        finetune={"max_steps": 30, "checkpoint_steps": 10},
        noise={
            "function": function, "rate": 0.3, "warmup_fraction": 0.9,
            "layerdrop": 0.2 * (share > 1),
        },
    )  # fmt: skip
    whole = run(params, tmp_path, "whole")

    steps = []

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append(state.global_step)
            if len(steps) == 17:
                raise Killed

    from compress import trainer

    original = trainer._Follow.on_step_end
    kill = Kill()

    def stop_at_17(self, args, state, control, **options):
        original(self, args, state, control, **options)
        kill.on_step_end(args, state, control)

    monkeypatch.setattr(trainer._Follow, "on_step_end", stop_at_17)
    with pytest.raises(Killed):
        run(params, tmp_path, "resumed", tmp_path / "work")
    assert not (tmp_path / "resumed").exists()
    resumed = run(params, tmp_path, "resumed", tmp_path / "work")
    assert steps == [*range(1, 18), *range(11, 31)]
    assert weights(resumed) == weights(whole)
    if share > 1:
        state = load_file(resumed / "model.safetensors")
        assert len(_of_layer(state, 1)) == 16
        assert _of_layer(state, 0).keys() == _of_layer(state, 1).keys()
        for name, tensor in _of_layer(state, 1).items():
            assert torch.equal(tensor, _of_layer(state, 0)[name])


def _of_layer(state, number):
    prefix = f"roberta.encoder.layer.{number}."
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def test_a_finished_training_is_taken_as_it_is(tmp_path, prepared, monkeypatch):
    """Killed between the last checkpoint and the writing of the model: not a step is taken."""
    from compress import trainer

    params = prepared(finetune={"max_steps": 6, "checkpoint_steps": 2})
    whole = run(params, tmp_path, "whole", tmp_path / "work")
    steps = []
    monkeypatch.setattr(
        trainer._Follow, "on_step_end", lambda *_, **__: steps.append(1), raising=True
    )
    again = run(params, tmp_path, "again", tmp_path / "work")
    assert not steps
    assert weights(again) == weights(whole)


def test_checkpoint_cut_off_in_the_middle_is_not_read(tmp_path):
    for step in (10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    write_marker(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert not (tmp_path / "checkpoint-20").exists()
    shutil.rmtree(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", MARKER])
def test_no_flipped_bit_of_a_checkpoint_goes_unseen(tmp_path, name):
    draw = random.Random(name)
    for _ in range(100):
        for step in (9, 10):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir(exist_ok=True)
            for file in ("model.safetensors", "optimizer.pt"):
                (folder / file).write_bytes(draw.randbytes(500))
            write_marker(folder)
        damaged = bytearray((folder / name).read_bytes())
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        (folder / name).write_bytes(damaged)
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
        assert not folder.exists()


def test_pretraining_trains_encoder_and_is_copied_when_off(tmp_path, prepared, roberta_folder):
    params = prepared()
    trained = training.pretrain(
        params, Path(), tmp_path / "data", tmp_path / "pretrained", tmp_path / "work"
    )
    assert trained.steps == 4
    assert weights(tmp_path / "pretrained") != weights(roberta_folder)
    params = prepared(pretrain={"enabled": False})
    trained = training.pretrain(
        params, Path(), tmp_path / "data", tmp_path / "pretrained", tmp_path / "work2"
    )
    assert trained.steps == 0
    assert weights(tmp_path / "pretrained") == weights(roberta_folder)


def test_the_noise_has_blocks_of_its_own(tmp_path, prepared, small_params):
    """Another block size of one group trains the same model; other blocks of the noise another."""
    base = weights(run(prepared(finetune={"max_steps": 3}), tmp_path, "a"))
    small_params["quantize"]["groups"][0] |= {"block_size": 2, "codebook_size": 4}
    assert weights(run(prepared(), tmp_path, "b")) == base
    assert weights(run(prepared(noise={"block_size": 2}), tmp_path, "c")) != base
    layers = noise_blocks(prepared(noise={"block_size": 24, "codebook_size": 4096}))
    assert set(layers) == {8}  # the greatest size that divides 24 and rows of 32 and 64
    run(prepared(), tmp_path, "d")  # more centroids than blocks: as many as there are


def noise_blocks(params):
    model = AutoModelForSequenceClassification.from_pretrained(params.model.source)
    return [settings.block_size for settings in training.noisy_layers(model, params).values()]


@pytest.mark.parametrize("function", ["codebook", "zero"])
def test_training_that_diverges_stops_with_a_remedy(tmp_path, prepared, function):
    params = prepared(
        finetune={"learning_rate": 1e12, "max_steps": 20, "warmup_fraction": 0.0},
        noise={"function": function},
    )
    with pytest.raises(ShrinkflowError, match="lower the learning rate"):
        run(params, tmp_path, "a")
    assert not (tmp_path / "a").exists()


def test_curve_has_steps_and_losses(tmp_path, prepared):
    params = prepared(finetune={"max_steps": 20})
    trained = training.finetune(
        params, Path(params.model.source), tmp_path / "data", tmp_path / "out", tmp_path / "work"
    )
    assert [row["step"] for row in trained.curve] == [10, 20]
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in trained.curve)
