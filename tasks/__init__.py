"""tasks: Prefect tasks around the library. Paths and hashes in, paths and hashes out."""
