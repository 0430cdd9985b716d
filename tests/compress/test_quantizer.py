"""The compressed model in the hands of Hugging Face's Trainer."""

import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from compress.checkpoint import save_compressed
from tests.compress.models import compress, make

ROWS = [
    {"input_ids": [3 + i, 7, 11 + i % 5, 2], "attention_mask": [1] * 4, "labels": i % 3}
    for i in range(24)
]


def trainer(model, folder):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        seed=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(model, arguments, train_dataset=ROWS)


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    model, _ = make("roberta")
    compress(model, row_scale=True)
    save_compressed(model, tmp_path / "m")

    def load():
        return AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")

    before = load().state_dict()
    whole = trainer(load(), tmp_path / "work")
    whole.train()
    resumed = trainer(load(), tmp_path / "work")
    resumed.train(resume_from_checkpoint=str(tmp_path / "work/checkpoint-2"))
    states = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in before)
    moved = {name for name in before if not torch.equal(before[name], states[0][name])}
    codebooks = {name for name in before if name.endswith((".codebook", ".row_scale"))}
    assert codebooks - moved <= {n for n in before if "position" in n or "token_type" in n}
    assert not any(name.endswith(".codes") for name in moved)


def test_a_checkpoint_in_training_is_itself_a_model_that_loads(tmp_path):
    model, inputs = make("roberta")
    compress(model, only="encoder")
    save_compressed(model, tmp_path / "m")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    compress(loaded, only="word_embeddings")  # the next group
    train = trainer(loaded, tmp_path / "work")
    train.train()
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "work/checkpoint-4")
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, loaded.eval()(**inputs).logits)
