import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from compress.checkpoint import save_compressed
from compress.manifest import install, list_entries, read_entries
from compress.stored import DTYPES, safetensors_bytes, stored_bytes
from tests.compress.models import MODELS, compress, make

NAMES = st.text('abc.é"\\', min_size=1, max_size=12)


@settings(max_examples=50)
@given(
    st.dictionaries(
        NAMES, st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 40), max_size=3))
    )
)
def test_the_size_of_a_safetensors_file_is_known_before_it_is_written(layout):
    tensors = {name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in layout.items()}
    assert safetensors_bytes(layout) == len(save(tensors, metadata={"format": "pt"}))


@pytest.mark.parametrize("rest", ["float16", "float32"])
@pytest.mark.parametrize("name", ["roberta", "masked-lm", "resnet"])
def test_stored_bytes_is_the_size_on_disk(name, rest, tmp_path):
    model, _ = make(name)
    compress(model, only="dense" if name == "roberta" else "", row_scale=True)
    predicted = stored_bytes(model, rest)
    with torch.device("meta"):
        empty = MODELS[name][0]()
        install(empty, read_entries(list_entries(model)))
    save_compressed(model, tmp_path / "m", rest=rest)
    size = (tmp_path / "m/model.safetensors").stat().st_size
    assert predicted == stored_bytes(empty, rest) == size
