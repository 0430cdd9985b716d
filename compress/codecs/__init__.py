"""One file a method; `codec_class(name)` finds it."""

from compress.codecs.base import Codec, FitReport, codec_class, methods, register

__all__ = ["Codec", "FitReport", "codec_class", "methods", "register"]
