"""The layer store: what is whole is found, what is damaged does not count and is made again."""

import pytest
import torch

from compress.codecs import codec_class
from compress.codecs.product import CodebookConfig
from compress.layer_file import write_layer
from tasks.store import LayerStore

KEY = "ab" + 62 * "0"


@pytest.fixture
def store(tmp_path):
    weight = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    settings = CodebookConfig(block_size=4, codebook_size=8, iterations=2)
    codec, report = codec_class("product").fit(weight, settings, seed=0)
    store = LayerStore(tmp_path)
    write_layer(store.path(KEY), codec, {"report": report.as_dict()})
    return store


def test_a_finished_layer_is_found_with_its_report(store):
    assert store.path(KEY).parent.name == "ab"
    found = store.find(KEY)
    assert found is not None and found["relative_distortion"] > 0
    assert store.find("cd" + KEY[2:]) is None


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_cut_file_does_not_count(store, cut):
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:cut])
    assert store.find(KEY) is None
    assert not path.exists()


def test_no_flipped_bit_goes_unseen(store):
    path = store.path(KEY)
    whole = path.read_bytes()
    for position in range(8, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        assert store.find(KEY) is None, position
    path.write_bytes(whole)
    assert store.find(KEY) is not None
