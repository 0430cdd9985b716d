"""The numbers of a finished run, for the table at its end."""

from dataclasses import dataclass

from tasks.outputs import read_json
from tasks.workspace import STAGES, Workspace


@dataclass(frozen=True)
class Summary:
    """Uncompressed against compressed, and what was decided. Seconds are those of the stages."""

    metric: str
    score: float
    score_uncompressed: float
    bytes: int
    bytes_uncompressed: int
    layers: int
    bits_per_weight: float
    empty_initial: int | None
    dead: int | None
    seconds: dict[str, float]
    name: str
    version: int
    alias: str
    reason: str


def summarize(workspace: Workspace) -> Summary:
    """Reads what the stages left in artifacts/metrics and artifacts/timings."""
    found = {stage: read_json(workspace.metrics(stage)) for stage in STAGES}
    evaluate, quantize, register = found["evaluate"], found["quantize"], found["register"]
    timings = {stage: read_json(workspace.timings(stage)) for stage in STAGES}
    return Summary(
        metric=evaluate["metric"],
        score=evaluate["score"],
        score_uncompressed=evaluate["score_uncompressed"],
        bytes=evaluate["bytes"],
        bytes_uncompressed=evaluate["bytes_uncompressed"],
        layers=quantize["layers"],
        bits_per_weight=quantize["bits_per_weight"],
        empty_initial=quantize.get("empty_initial"),
        dead=quantize.get("dead"),
        seconds={stage: t["seconds"] for stage, t in timings.items() if "seconds" in t},
        name=register["name"],
        version=register["version"],
        alias=register["alias"],
        reason=register["reason"],
    )
