"""Product codes that fit a number of bits on disk."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compress.checkpoint import save_compressed
from compress.codecs.product import ProductCodec
from compress.codecs.product_price import CLOSE
from compress.codecs.product_settings import CodebookConfig
from compress.config import QuantizeConfig
from compress.errors import InputError
from compress.replacement import replace
from compress.selection import compressible, weight_of
from tests.compress.models import roberta, text_input


def config(**changes):
    return CodebookConfig(**({"block_size": 4, "codebook_size": 64} | changes))


def weight(shape=(256, 128), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("code_bits", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("sensitive", ["no", "rows", "columns"])
@pytest.mark.parametrize("row_scale", [False, True])
def test_the_codes_on_disk_take_what_they_may_and_not_much_less(code_bits, sensitive, row_scale):
    shape = {"no": None, "rows": (256, 1), "columns": (1, 128)}[sensitive]
    sensitivity = None if shape is None else torch.rand(shape).pow(4) + 0.01
    settings = config(code_bits=code_bits, row_scale=row_scale)
    codec, report = ProductCodec.fit(weight(), settings, sensitivity=sensitivity)
    coded = codec.coded_codes()
    assert coded is not None
    assert codec.most_bytes == int(256 * 32 * code_bits / 8)
    assert (1 - 6 * CLOSE) * codec.most_bytes <= len(coded) <= codec.most_bytes
    assert report.bytes == ProductCodec.tensor_bytes((256, 128), settings)
    assert report.dead == 0 and sum(report.usage) == codec.n_blocks
    plain = ProductCodec.tensor_bytes((256, 128), config(row_scale=row_scale))
    assert plain - report.bytes == codec.packed_bytes - codec.most_bytes


def test_at_equal_bytes_it_errs_less_than_a_smaller_codebook():
    values = weight((1024, 512))
    small, plain = ProductCodec.fit(values, config(codebook_size=32))
    bits = 8 * (small.packed_bytes - 32 * 4 * 2) / small.n_blocks  # its codebook is larger
    _, report = ProductCodec.fit(values, config(codebook_size=64, code_bits=bits))
    assert report.bytes <= plain.bytes
    assert report.relative_distortion < 0.98 * plain.relative_distortion


def test_rows_that_hardly_matter_pay_for_the_others():
    """Most rows of a vocabulary are rare: an embedding at equal bytes, weighted by use."""
    values, use = weight((1024, 64)), 0.1 + 1000.0 / torch.arange(1, 1025)[:, None]
    _, plain = ProductCodec.fit(values, config(codebook_size=16), sensitivity=use)
    _, coded = ProductCodec.fit(values, config(codebook_size=64, code_bits=3.6), sensitivity=use)
    assert coded.bytes <= plain.bytes
    assert coded.weighted_distortion < 0.7 * plain.weighted_distortion


def test_in_parts_and_in_batches_the_bytes_are_the_same():
    settings, values = config(code_bits=4.0), [weight(seed=i) for i in range(2)]
    alone = [ProductCodec.fit(v, settings, seed=i)[0].state_dict() for i, v in enumerate(values)]
    batch = ProductCodec.fit_batch(values, settings, seeds=[0, 1])
    rows = ProductCodec.fit_rows(lambda a, b: values[0][a:b], (256, 128), settings, seed=0)[0]
    for name in alone[0]:
        assert torch.equal(alone[0][name], rows.state_dict()[name])
        for own, (codec, _) in zip(alone, batch, strict=True):
            assert torch.equal(own[name], codec.state_dict()[name])


def test_a_model_with_such_codes_reads_back_to_the_bit(tmp_path):
    model = roberta()
    for ref in compressible(model):
        settings = config(codebook_size=8, code_bits=2.0)
        if not ProductCodec.problems(ref.shape, settings):
            values = weight_of(model, ref)
            replace(model, ref, ProductCodec.fit(values, settings)[0])
    save_compressed(model, tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    inputs = text_input()
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, again.eval()(**inputs).logits)


def test_bits_that_no_code_can_have_are_refused():
    for bits in (0.2, 7.0):
        [problem] = ProductCodec.problems((256, 128), config(code_bits=bits))
        assert "takes" in problem or "take" in problem
        with pytest.raises(InputError, match="code_bits"):
            ProductCodec.fit(weight(), config(code_bits=bits))
    [problem] = ProductCodec.problems((16, 16), config(codebook_size=16, code_bits=2.0))
    assert "no fewer" in problem
    assert ProductCodec.problems((256, 128), config(code_bits=6)) == []


def test_codes_that_fill_a_size_are_not_assigned_anew():
    groups = [{"name": "all", "layers": ["**"], "code_bits": 4.0}]
    with pytest.raises(ValueError, match="code_bits"):
        QuantizeConfig.model_validate({"groups": groups, "finetune": {"reassign_steps": 5}})
