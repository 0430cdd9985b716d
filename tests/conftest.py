"""Every test is offline, quiet and leaves nothing outside its own folders."""

import os
from collections.abc import Iterator

import pytest

import tasks  # sets the defaults that a run has, before anything reads them
from tests import services

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "agg",
    "PYTHONDONTWRITEBYTECODE": "1",
}
assert tasks


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL cluster for all tests: each makes a database of its own in it."""
    with services.postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3() -> Iterator[services.S3]:
    """An S3 endpoint for all tests: each uses a prefix of its own in the bucket."""
    with services.s3() as storage:
        yield storage
