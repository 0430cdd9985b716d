"""Tiny decoders with a tokenizer of whole words and without a padding token, as GPT-2's."""

from pathlib import Path
from typing import Any

TEXT = "a the film story plot actor was is good great moving bad dull slow and very"
WORDS = TEXT.split()
# family -> patterns of its layers: feed-forward network and attention, and the embedding
PATTERNS = {
    "gpt2": (["**.mlp.*", "**.attn.*"], ["**.wte"]),
    "llama": (["**.mlp.*", "**.self_attn.*"], ["**.embed_tokens"]),
}


def write_decoder(folder: Path, family: str = "gpt2", *, tied: bool = True) -> Path:
    """A folder with a `family` model of two layers, hidden 32, 64 positions, untrained."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )

    words = ["<unk>", "<|endoftext|>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    shared: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "tie_word_embeddings": tied, "bos_token_id": 1,
        "eos_token_id": 1,
    }  # fmt: skip
    config = (
        GPT2Config(**shared) if family == "gpt2" else LlamaConfig(**shared, intermediate_size=64)
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def text(count: int, seed: int = 0) -> list[str]:
    """Rows in which every word but the first says which comes next, nine times of ten."""
    import random

    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        at = draw.randrange(len(WORDS))
        row = []
        for _ in range(draw.randrange(4, 14)):
            row.append(WORDS[at])
            at = (5 * at + 3) % len(WORDS) if draw.random() < 0.9 else draw.randrange(len(WORDS))
        rows.append(" ".join(row))
    return rows


def decoder_params(model: str, source: str, family: str = "gpt2", **changes: Any) -> dict[str, Any]:
    """The raw params of a run that trains and compresses it."""
    inner, embedding = PATTERNS[family]
    return {
        "model": {"source": model},
        "data": {"task": "causal-lm", "source": source, "holdout": 24, "max_length": 16},
        "pretrain": {"enabled": False, "data": {"source": source}},
        "finetune": {"max_steps": 60, "batch_size": 16, "learning_rate": 1e-2},
        "noise": {"function": "mean"},
        "quantize": {
            "block_size": 4,
            "codebook_size": 6,
            "iterations": 4,
            "error_feedback": True,  # of an embedding: by gradients at its output
            "groups": [
                {"name": "inner", "layers": inner},
                {"name": "words", "layers": embedding, "codebook_size": 16},
            ],
            "finetune": {
                "max_steps": 20, "batch_size": 16, "centroid_learning_rate": 1e-2,
                "learning_rate": 1e-3,
            },
        },
    } | changes  # fmt: skip
