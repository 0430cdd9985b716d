"""Codebooks: points in, centroids and codes out. Knows nothing of layers."""

from compress.kmeans.distance import assign
from compress.kmeans.lloyd import fit
from compress.kmeans.result import KMeansResult

__all__ = ["KMeansResult", "assign", "fit"]
