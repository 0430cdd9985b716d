"""Codebooks: points in, centroids and codes out. Knows nothing of layers."""

from compress.kmeans.api import assign, fit, fit_batched
from compress.kmeans.result import KMeansResult

__all__ = ["KMeansResult", "assign", "fit", "fit_batched"]
