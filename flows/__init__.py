"""flows: composition of tasks into stages and stages into the pipeline."""
