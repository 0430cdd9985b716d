"""DVC, the judge of what is up to date. Nothing outside this package imports dvc."""

from tasks.versions.recorded import note_recorded
from tasks.versions.repository import open_versions
from tasks.versions.stage_versions import Versions

__all__ = ["Versions", "note_recorded", "open_versions"]
