"""tasks: Prefect tasks around the library. Paths and hashes in, paths and hashes out."""

from tasks.environment import apply_defaults

apply_defaults()
