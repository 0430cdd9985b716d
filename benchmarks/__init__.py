"""Measurements on real weights; not part of the package."""
