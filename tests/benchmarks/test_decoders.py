"""benchmarks/decoders.py: its models, its tokenizer, and params files that fit them."""

from pathlib import Path

import pytest

from benchmarks import decoders
from benchmarks.glue_cells import cells, read_spec
from benchmarks.glue_report import lines
from compress.selection import compressible, select

SPEC = read_spec(Path(decoders.__file__).parent / "decoders")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_matrix_but_the_positions_is_in_the_group(family):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(decoders.config(family))
    params = next(c.params for c in cells(SPEC, 1) if (c.task, c.row) == (family, "product"))
    chosen = {layer.ref.name for layer in select(model, params.quantize).layers}
    left = {ref.name for ref in compressible(model)} - chosen
    assert left <= {"transformer.wpe"}
    assert 4e6 < model.num_parameters() < 6e6


def test_the_tokenizer_gives_texts_back():
    rows = ["A film that was good.", "An odd — and long — one…"]
    made = decoders.tokenizer(rows * 20)
    for row in [*rows, "something else entirely"]:
        assert made.decode(made(row)["input_ids"]) == row
    assert made.convert_ids_to_tokens(0) == decoders.END


def test_a_cell_is_named_by_family_and_seed():
    every = cells(SPEC, 2)
    assert len({cell.key for cell in every}) == len(every)
    assert {cell.params.data.metric for cell in every} == {"perplexity"}


def test_a_higher_perplexity_is_a_drop_in_log_points():
    def result(row, score):
        return {
            "task": "llama", "row": row, "seed": 0, "metric": "perplexity", "score": score,
            "bytes": 1, "seconds": 1.0, "uncompressed": {"bytes": 8, "score": 50.0},
        }  # fmt: skip

    found = lines(SPEC, [result("uncompressed", 50.0), result("int4", 55.0)])["llama", "int4"]
    assert found.drop == pytest.approx(9.53, abs=0.01)
    assert found.change == pytest.approx(-9.53, abs=0.01)
