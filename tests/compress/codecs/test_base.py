import sys
import textwrap

import pytest
import torch

from compress import codecs
from compress.codecs import base
from compress.codecs.product import CodebookConfig
from compress.errors import InputError


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(InputError, match=r"unknown method `ternary`; there are .*product"):
        codecs.codec_class("ternary")


def test_a_method_is_one_file_that_enters_itself(tmp_path, monkeypatch):
    source = """
        import torch
        from pydantic import BaseModel
        from torch import nn
        from compress.codecs import Codec, register

        class Settings(BaseModel):
            pass

        @register("sign")
        class SignCodec(Codec):
            Settings = Settings
            def __init__(self, shape, settings):
                super().__init__(shape, settings)
                self.signs = nn.Buffer(torch.zeros(shape, dtype=torch.int8))
                self.scale = nn.Parameter(torch.zeros(()))
            empty = classmethod(lambda cls, shape, settings: cls(shape, settings))
            def decode(self):
                return self.signs * self.scale
    """
    (tmp_path / "sign.py").write_text(textwrap.dedent(source))
    monkeypatch.setattr(codecs, "__path__", [*codecs.__path__, str(tmp_path)])
    try:
        cls = codecs.codec_class("sign")
        assert cls.tensor_bytes((4, 6), cls.Settings()) == 4 * 6 + 2  # int8 signs, fp16 scale
        codec = cls.empty((4, 6), cls.Settings())
        codec.signs.fill_(1)
        assert codec.decode_rows(torch.tensor([[2]])).shape == (1, 1, 6)
    finally:
        base._CODECS.pop("sign", None)
        sys.modules.pop("compress.codecs.sign", None)


def test_bytes_are_those_of_the_tensors_that_are_stored():
    cls = codecs.codec_class("product")
    settings = CodebookConfig(block_size=4, codebook_size=100, row_scale=True)
    bits = 32 * 16 * 7  # 512 blocks, 7-bit codes
    assert cls.tensor_bytes((32, 64), settings) == bits // 8 + 100 * 4 * 2 + 32 * 2
