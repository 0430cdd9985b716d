"""Every test is offline, quiet and leaves nothing outside its own folders."""

import os

import tasks  # sets the defaults that a run has, before anything reads them

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "agg",
    "PYTHONDONTWRITEBYTECODE": "1",
}
assert tasks
