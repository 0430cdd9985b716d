"""Causal language models through every step of the library: rows, training, codes, perplexity."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from compress import data, training
from compress.checkpoint import save_compressed
from compress.config import Params
from compress.distillation import DistillationTrainer
from compress.errors import CheckpointError
from compress.evaluation import evaluate, perplexity
from compress.ipq import quantize
from compress.loading import load_model, load_tokenizer
from compress.rows import Batches, Rows
from tests.decoders import decoder_params, text, write_decoder

CASES = {"gpt2": ("gpt2", True), "llama-untied": ("llama", False)}


class Decoder:
    """A decoder that was trained on the spot, its params and rows."""

    def __init__(self, root: Path, family: str, tied: bool):
        self.root = root
        source = write_decoder(root / "source", family, tied=tied)
        lines = [json.dumps(row) for row in [" ", "film", *text(300)]]
        (root / "rows.csv").write_text("\n".join(["text", *lines]) + "\n")
        self.params = Params.model_validate(
            decoder_params(str(source), str(root / "rows.csv"), family)
        )
        self.facts = data.prepare(self.params, root, root / "data")
        self.source, self.folder = source, root / "finetuned"
        training.finetune(self.params, source, root / "data", self.folder, root / "work")

    def perplexity(self, folder: Path) -> float:
        return evaluate(folder, self.root / "data", self.params.data.metric)["score"]


@pytest.fixture(scope="module", params=CASES)
def decoder(request, tmp_path_factory):
    return Decoder(tmp_path_factory.mktemp("decoder"), *CASES[request.param])


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Decoder(tmp_path_factory.mktemp("gpt2"), *CASES["gpt2"])


def test_trained_compressed_and_read_back(decoder, tmp_path):
    params = decoder.params
    before = decoder.perplexity(decoder.folder)
    assert before < 5 < 30 < decoder.perplexity(decoder.source)  # 64 tokens, of which 16 occur
    done = quantize(
        params,
        teacher_dir=decoder.folder,
        data_dir=decoder.root / "data",
        out_dir=tmp_path / "compressed",
        work_dir=tmp_path / "work",
    )
    inner = done.groups[0]
    assert inner["score"] < inner["score_before_finetune"]  # lower is better
    after = decoder.perplexity(tmp_path / "compressed")
    assert after < 1.5 * before
    assert after == pytest.approx(done.groups[-1]["score"], rel=0.01)  # the rest in fp16
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "compressed")
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    assert (getattr(head, "codec", None) is words.codec) == model.config.tie_word_embeddings
    assert not any(isinstance(m, Conv1D) for m in model.modules())
    ids = torch.tensor([[3, 5, 7]])
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape == (1, 7)


def test_perplexity_is_that_of_every_token_alone(gpt2):
    model, tokenizer = load_model(gpt2.folder), load_tokenizer(gpt2.folder)
    rows = Rows(gpt2.root / "data" / "validation.parquet")
    total, count = 0.0, 0
    with torch.no_grad():
        for i in range(len(rows)):
            ids = torch.tensor([rows[i]["input_ids"]])
            logits = model.eval()(ids).logits.double()
            total += float(F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))
            count += ids.shape[1] - 1
    for size in (1, 7, 64):
        found = perplexity(model, tokenizer, rows, batch_size=size)
        assert found == pytest.approx(math.exp(total / count), rel=1e-4)


def test_rows_are_texts_that_have_a_next_token(gpt2):
    folder = gpt2.root / "data"
    rows = [row for s in ("train", "validation") for row in Rows(folder / f"{s}.parquet")]
    assert len(rows) == 300  # neither the blank row nor the one of a single word
    assert {key for row in rows for key in row} == {"input_ids"}
    assert max(len(row["input_ids"]) for row in rows) > 8
    task = json.loads((folder / "labels.json").read_text())
    assert task == {"task": "causal-lm", "labels": []}
    assert gpt2.facts["metric"] == "perplexity"


def test_labels_are_the_tokens_that_are_not_padding(gpt2):
    tokenizer = load_tokenizer(gpt2.folder)
    batch = Batches(tokenizer)([{"input_ids": [4, 1, 6]}, {"input_ids": [7, 8]}])
    assert batch["labels"].tolist() == [[4, 1, 6], [7, 8, -100]]  # 1 pads, and is a token, too
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_distillation_counts_every_token_once_whatever_the_padding(gpt2, tmp_path):
    from compress.trainer import arguments

    teacher, tokenizer = load_model(gpt2.folder), load_tokenizer(gpt2.folder)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.transformer.h[0].mlp.c_fc.weight.mul_(0.5)
    recovery = gpt2.params.quantize.finetune
    settings = arguments(recovery, tmp_path, 0, 0)
    trainer = DistillationTrainer(student, settings, teacher=teacher, recovery=recovery)
    collate, rows = Batches(tokenizer), [{"input_ids": [4, 5, 6, 7, 8, 9]}, {"input_ids": [3, 4]}]
    together = trainer.compute_loss(student, collate(rows))
    only = recovery.model_copy(update={"hidden_weight": 0.0})
    trainer = DistillationTrainer(student, settings, teacher=teacher, recovery=only)
    losses = [trainer.compute_loss(student, collate([row])).item() for row in rows]
    both = trainer.compute_loss(student, collate(rows)).item()
    assert both == pytest.approx((6 * losses[0] + 2 * losses[1]) / 8, rel=1e-4)
    assert together.item() > both > 0


def test_a_conv1d_is_the_linear_layer_that_it_computes(gpt2):
    """Its weight lies the other way around; what is measured and read of it does not."""
    from compress.calibration.activations import activations
    from compress.calibration.fisher import fisher
    from compress.calibration.moments import moments
    from compress.quantization import read_tensor
    from compress.selection import compressible, weight_of

    model = load_model(gpt2.folder).eval()
    conv1d = [n for n, m in model.named_modules() if isinstance(m, Conv1D)]
    refs = [ref for ref in compressible(model) if ref.transposed]
    assert [ref.name for ref in refs] == conv1d
    assert [ref.shape for ref in refs][:2] == [(96, 32), (32, 32)]
    batch = {"input_ids": torch.tensor([[3, 4, 5]]), "attention_mask": torch.ones(1, 3).long()}
    seen = activations(model, [batch], refs)
    products = moments(model, [batch], refs)
    file = gpt2.folder / "model.safetensors"
    for ref in refs:
        assert seen[ref.name].shape == (1, ref.shape[1])
        assert products[ref.name].shape == (1, ref.shape[1], ref.shape[1])
        weight = weight_of(model, ref)
        assert torch.equal(weight, read_tensor(file, ref.tensor, ref.transposed))
        assert torch.equal(weight.T, model.get_submodule(ref.name).weight)
    each = fisher(model, [batch], refs, gpt2.params.quantize.finetune)
    assert all(each[ref.name].shape == ref.shape for ref in refs)


def test_a_head_that_is_not_there_is_not_made_up(decoder, tmp_path):
    """Of a bare decoder a tied head is its embedding; without that there is nothing to finetune."""
    model = load_model(decoder.folder)
    model.get_decoder().save_pretrained(tmp_path / "bare")
    load_tokenizer(decoder.folder).save_pretrained(tmp_path / "bare")
    if model.config.tie_word_embeddings:
        bare = load_model(tmp_path / "bare", "causal-lm")
        assert bare.get_output_embeddings().weight is bare.get_input_embeddings().weight
    else:
        with pytest.raises(CheckpointError, match="lm_head"):
            load_model(tmp_path / "bare", "causal-lm")


def test_continued_training_is_on_the_next_token(gpt2, tmp_path):
    raw = gpt2.params.model_dump()
    raw["pretrain"] |= {"enabled": True, "max_steps": 30, "batch_size": 16, "learning_rate": 1e-2}
    params = Params.model_validate(raw)
    data.prepare(params, gpt2.root, tmp_path / "data")
    out = tmp_path / "pretrained"
    training.pretrain(params, gpt2.root, tmp_path / "data", out, tmp_path / "work")
    assert gpt2.perplexity(out) < 0.5 * gpt2.perplexity(gpt2.source)
    save_compressed(load_model(out), tmp_path / "m")  # a model of this kind, whatever it is named
    assert load_model(tmp_path / "m").config.architectures == ["GPT2LMHeadModel"]
