"""Small real transformers models and how tests compress them."""

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ResNetConfig,
    RobertaConfig,
    ViTConfig,
)

from compress.codecs import codec_class
from compress.codecs.product_settings import CodebookConfig
from compress.replacement import replace
from compress.selection import compressible, weight_of

SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def text_input() -> dict[str, torch.Tensor]:
    ids = torch.arange(3, 3 + 2 * 11).reshape(2, 11) * 5 % 120
    ids[1, 7:] = 1  # RoBERTa's padding
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def image_input() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


def roberta() -> nn.Module:
    return AutoModelForSequenceClassification.from_config(RobertaConfig(**SIZES, num_labels=3))


def bert() -> nn.Module:
    return AutoModelForSequenceClassification.from_config(BertConfig(**SIZES))


def distilbert() -> nn.Module:
    config = DistilBertConfig(
        vocab_size=120, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40
    )
    return AutoModelForSequenceClassification.from_config(config)


def deberta(config_class: type = DebertaConfig) -> nn.Module:
    """Attention by content and position: relative positions are an embedding that is read whole."""
    config = config_class(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"])
    return AutoModelForSequenceClassification.from_config(config)


def deberta_v2() -> nn.Module:
    return deberta(DebertaV2Config)


def vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=3,
    )  # fmt: skip
    return AutoModelForImageClassification.from_config(config)


def masked_lm() -> nn.Module:
    return AutoModelForMaskedLM.from_config(BertConfig(**SIZES))


def llama() -> nn.Module:
    """A decoder whose lm_head is tied to its embeddings."""
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, tie_word_embeddings=True))


def gpt2() -> nn.Module:
    """Its projections are Conv1D; embeddings and head are tied."""
    return AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=120, n_embd=32, n_layer=1, n_head=2)
    )


def resnet() -> nn.Module:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    model = AutoModelForImageClassification.from_config(config).train()
    for _ in range(3):  # running statistics of batch norm that fp16 cannot hold exactly
        model(**image_input())
    return model


MODELS = {
    "roberta": (roberta, text_input),
    "bert": (bert, text_input),
    "distilbert": (distilbert, text_input),
    "deberta": (deberta, text_input),
    "deberta-v2": (deberta_v2, text_input),
    "vit": (vit, image_input),
    "masked-lm": (masked_lm, text_input),
    "llama": (llama, text_input),
    "gpt2": (gpt2, text_input),
    "resnet": (resnet, image_input),
}


def make(name: str, seed: int = 0) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A model in eval mode with its input."""
    torch.manual_seed(seed)
    build, inputs = MODELS[name]
    return build().eval(), inputs()


def compress(model: nn.Module, only: str = "", **settings) -> list[str]:
    """Compresses every layer that can be (whose name holds `only`); returns their names."""
    done = []
    for ref in compressible(model):
        block = next(d for d in (4, 9, 7) if torch.Size(ref.shape[1:]).numel() % d == 0)
        config = CodebookConfig(**({"block_size": block, "codebook_size": 16} | settings))
        method = codec_class(config.method)
        if only in ref.name and not method.problems(ref.shape, config):
            codec, _ = method.fit(weight_of(model, ref), config)
            replace(model, ref, codec)
            done.append(ref.name)
    return done
