"""benchmarks/methods.py: its params files name every method there is, each at all sizes."""

from pathlib import Path

from benchmarks import methods
from benchmarks.glue_cells import cells, read_spec
from compress.codecs.registry import methods as known

FOLDER = Path(methods.__file__).parent / "methods"
NEAR = ({8.0}, {13.0, 15.0, 16.0}, {24.0})
GRIDS = {"uniform", "adaround", "bayesian_bits", "sparse"}  # at least two bits a weight


def test_every_method_at_every_size():
    found: dict[str, set[float]] = {}
    for cell in cells(read_spec(FOLDER), 1):
        quantize = cell.params.quantize
        if cell.kind == "ipq" and quantize.budget is not None:
            for group in quantize.groups:
                found.setdefault(quantize.settings(group).method, set()).add(quantize.budget.ratio)
    assert found.keys() == known().keys()
    for method, ratios in found.items():
        assert [len(ratios & sizes) for sizes in NEAR] == [1, 1, method not in GRIDS]


def test_all_cells_of_a_task_start_from_one_model():
    """But for those whose layers are prepared to be fewer."""
    every = cells(read_spec(FOLDER), 1)
    own = [cell for cell in every if cell.task == "sst2"]
    fewer = {cell.teacher_key for cell in own if "depth" in cell.raw}
    whole = {cell.teacher_key for cell in own if "depth" not in cell.raw}
    assert len(whole) == 1 and len(fewer) == 2 and not fewer & whole
    assert len({cell.key for cell in every}) == len(every)


def test_lists_its_own_cells(capsys):
    assert methods.main(["--list", "--seeds", "1", "--tasks", "sst2", "--rows", "dkm-8x"]) == 0
    assert "dkm-8x" in capsys.readouterr().out
