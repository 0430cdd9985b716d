"""Nothing that runs is read from files: no pickle, no Python tags, also not in our own folders."""

import ast
import os
import pickle
from pathlib import Path

import pytest
import torch

from compress.training_state import MARKER, last_checkpoint, write_marker

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {
    "torch.load",
    "np.load",
    "numpy.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "eval",
    "exec",
}


def sources():
    return [f for package in ("compress", "tasks", "flows") for f in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(ROOT)))
def test_no_module_reads_what_could_run(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & MODULES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in MODULES
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in CALLS
            for option in node.keywords:
                if option.arg in ("trust_remote_code", "allow_pickle"):
                    assert ast.unparse(option.value) == "False"


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def mine(tmp_path):
    """A pickle, and the folder whose presence would tell that it was read."""
    trap = tmp_path / "trapped"
    content = pickle.dumps(Harmful(trap))
    pickle.loads(content)
    assert trap.is_dir(), "the pickle is no mine"
    trap.rmdir()
    return content, trap


def test_a_pickle_in_the_layer_store_is_not_read(tmp_path, mine):
    from tasks.store import LayerStore

    content, trap = mine
    store = LayerStore(tmp_path / "layers")
    key = "ab" + 62 * "0"
    store.path(key).parent.mkdir(parents=True)
    store.path(key).write_bytes(content)
    assert store.find(key) is None
    assert not trap.exists()


def test_a_pickle_in_an_unfinished_training_is_not_read(tmp_path, mine):
    """Unknown to the marker, the checkpoint does not count; with a marker that was made to fit,
    torch refuses to unpickle what is no tensor."""
    content, trap = mine
    checkpoint = tmp_path / "work" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    torch.save({"state": torch.zeros(2)}, checkpoint / "optimizer.pt")
    write_marker(checkpoint)
    assert last_checkpoint(checkpoint.parent) == str(checkpoint)
    (checkpoint / "optimizer.pt").write_bytes(content)
    assert last_checkpoint(checkpoint.parent) is None
    assert not checkpoint.exists() and not trap.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_planted_checkpoint_is_refused_by_torch(tmp_path, mine, roberta_steps, name):
    content, trap = mine
    train, work = roberta_steps
    checkpoint = Path(last_checkpoint(work) or "")
    whole = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content)
    write_marker(checkpoint)
    with pytest.raises(Exception, match="(?i)weights.only|unpickl"):
        train()
    assert not trap.exists()
    (checkpoint / name).write_bytes(whole)
    write_marker(checkpoint)


@pytest.fixture(scope="module")
def roberta_steps(tmp_path_factory):
    """A training that has been stopped after its second step: (go on, its folder)."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AutoModelForSequenceClassification, BertConfig, BertTokenizerFast

    from compress.config import TrainingConfig
    from compress.rows import Rows
    from compress.trainer import train

    folder = tmp_path_factory.mktemp("training")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    tokenizer = BertTokenizerFast(vocab={w: i for i, w in enumerate(words)})
    rows = {"input_ids": [[2, 5, 3], [2, 6, 3]] * 4, "label": [1, 0] * 4}
    pq.write_table(pa.table(rows), folder / "train.parquet")
    sizes = {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=8)
    work = folder / "work"

    def steps(count):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        settings = TrainingConfig(max_steps=count, batch_size=2, checkpoint_steps=2)
        title = "finetune"
        train(
            model, tokenizer, Rows(folder / "train.parquet"), settings,
            work_dir=work, seed=0, title=title,
        )  # fmt: skip

    steps(2)
    assert (work / "checkpoint-2" / MARKER).is_file()
    return (lambda: steps(4)), work


def test_results_of_prefect_are_json_and_not_kept():
    """Also under `dvc repro` and in deployments: importing the package `tasks` sets it."""
    from prefect.results import get_default_persist_setting, get_default_result_serializer

    import flows.pipeline
    import flows.stage_flows as stages

    assert flows.pipeline
    assert get_default_result_serializer().type == "json"
    assert get_default_persist_setting() is False
    for flow in stages.FLOWS.values():
        assert not flow.persist_result and flow.result_serializer in (None, "json")
