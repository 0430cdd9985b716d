"""Small real models and data, made here: a RoBERTa with its own BPE, sentences with labels."""

import copy
import random
from pathlib import Path

import pytest

FILLER = ["a", "the", "film", "story", "plot", "actor", "scene", "ending", "music", "camera", "was"]
GOOD = ["good", "great", "moving", "funny", "sharp", "bright", "warm"]
BAD = ["bad", "dull", "slow", "flat", "weak", "cold", "boring"]


def sentences(count: int, seed: int = 0) -> list[tuple[str, int]]:
    """(text, label) pairs whose label follows from one word, so that a small model can learn it."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [draw.choice(FILLER) for _ in range(draw.randrange(3, 12))]
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if label else BAD))
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RoBERTa masked-LM folder: 2 layers, hidden 32, byte-level BPE trained on the spot."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("roberta")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        (text for text, _ in sentences(200)),
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    bpe.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
    )
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GLUE-like parquet files: train and validation, columns sentence, label, idx."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("task")
    for split, count, seed in (("train", 160, 1), ("validation", 64, 2)):
        texts, labels = zip(*sentences(count, seed), strict=True)
        table = pa.table({"sentence": texts, "label": labels, "idx": list(range(count))})
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


@pytest.fixture
def small_params(small_run: dict) -> dict:
    """The raw params of a whole run on the small RoBERTa, to be changed and validated by a test."""
    return copy.deepcopy(small_run)


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory: pytest.TempPathFactory, small_run: dict) -> Path:
    """A folder with data/ and finetuned/ of the small RoBERTa, trained on the spot."""
    from compress import data, training
    from compress.config import Params

    folder = tmp_path_factory.mktemp("finetuned")
    params = Params.model_validate(small_run)
    data.prepare(params, Path(), folder / "data")
    source = Path(params.model.source)
    training.finetune(params, source, folder / "data", folder / "finetuned", folder / "work")
    return folder


@pytest.fixture(scope="session")
def small_run(roberta_folder: Path, task_folder: Path) -> dict:
    """The raw params behind `small_params`, not to be changed."""
    return {
        "model": {"source": str(roberta_folder)},
        "data": {
            "source": str(task_folder),
            "text": ["sentence"],
            "validation": "validation",
            "max_length": 32,
        },
        "pretrain": {
            "data": {"source": str(task_folder), "text": ["sentence"], "max_length": 32},
            "max_steps": 4,
            "batch_size": 8,
        },
        "finetune": {"max_steps": 60, "batch_size": 16, "learning_rate": 1e-2},
        "noise": {"refresh_steps": 10},
        "quantize": {
            "codebook_size": 16,
            "groups": [
                {
                    "name": "ffn",
                    "layers": ["**.intermediate.dense", "**.layer.*.output.dense"],
                    "block_size": 4,
                },
                {"name": "embeddings", "layers": ["**.word_embeddings"]},
            ],
            "finetune": {"max_steps": 10, "batch_size": 16},
        },
    }
