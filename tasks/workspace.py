"""Where everything lies: one folder a params file, and what the runs of one project share."""

from dataclasses import dataclass
from pathlib import Path

from compress.config import Params
from compress.errors import InputError
from compress.params_yaml import load_params

STAGES = ("prepare", "pretrain", "finetune", "quantize", "evaluate", "register")
PARAMS_FILE = "params.yaml"
STATE = ".shrinkflow"
RUNS = "runs"


@dataclass(frozen=True)
class Workspace:
    """The folder `root` of a params.yaml; all its paths. Nothing is created by looking.

    What runs can share (layer store, MLflow, Prefect) lies in the `project`: the nearest folder
    above that DVC manages, else the `home` of the workspace.
    """

    root: Path

    @property
    def project(self) -> Path:
        return next(
            (f for f in (self.root, *self.root.parents) if (f / ".dvc").is_dir()), self.root
        )

    @property
    def home(self) -> Path:
        """The folder of the user's own files: for runs/<name> the one that holds runs."""
        return self.root.parent.parent if self.root.parent.name == RUNS else self.root

    @property
    def params_file(self) -> Path:
        return self.root / PARAMS_FILE

    @property
    def dvc_file(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def data(self) -> Path:
        return self.artifacts / "data"

    @property
    def pretrained(self) -> Path:
        return self.artifacts / "pretrained"

    @property
    def finetuned(self) -> Path:
        return self.artifacts / "finetuned"

    @property
    def compressed(self) -> Path:
        return self.artifacts / "compressed"

    @property
    def plots(self) -> Path:
        return self.artifacts / "plots"

    @property
    def report(self) -> Path:
        return self.artifacts / "report.html"

    def metrics(self, stage: str) -> Path:
        return self.artifacts / "metrics" / f"{stage}.json"

    def plot(self, name: str) -> Path:
        return self.plots / f"{name}.csv"

    def timings(self, stage: str) -> Path:
        """Seconds and peak memory; not an output of the stage: they differ from run to run."""
        return self.artifacts / "timings" / f"{stage}.json"

    @property
    def state(self) -> Path:
        return self.root / STATE

    def work(self, stage: str) -> Path:
        """What an unfinished stage resumes from; removed once the stage is recorded."""
        return self.state / "work" / stage

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def layers(self) -> Path:
        return self.project / STATE / "layers"

    @property
    def mlflow(self) -> Path:
        return self.project / STATE / "mlflow"

    @property
    def prefect(self) -> Path:
        return self.project / STATE / "prefect"


def workspace_of(params_file: Path | str) -> Workspace:
    """params.yaml -> its folder; any other name -> runs/<name> of the project it lies in."""
    path = Path(params_file).expanduser().absolute()
    if not path.is_file():
        raise InputError(f"{params_file}: no such params file; give one with --params")
    if path.name == PARAMS_FILE:
        return Workspace(path.parent)
    return Workspace(Workspace(path.parent).project / RUNS / path.stem)


def opened(root: Path | str) -> tuple[Workspace, Params]:
    """The workspace in the folder `root` and what its params.yaml says."""
    workspace = Workspace(Path(root))
    return workspace, load_params(workspace.params_file)
