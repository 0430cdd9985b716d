"""Entropy-coded codes: frequent ones take fewer bits (range asymmetric numeral systems, rANS; Duda
2013, arXiv 1311.2540)."""

from compress.entropy.stream import LEAST, PAYS, decode, encode, encode_if_smaller

__all__ = ["LEAST", "PAYS", "decode", "encode", "encode_if_smaller"]
