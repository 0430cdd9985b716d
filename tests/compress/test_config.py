import re
from pathlib import Path

import pytest
import yaml

from compress.config import Params
from compress.errors import InputError
from compress.params_yaml import load_params

PROJECT = Path(__file__).parents[2]


def write(folder: Path, raw: object) -> Path:
    path = folder / "params.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize("file", ["params.yaml", *sorted((PROJECT / "params").glob("*.yaml"))])
def test_shipped_params_are_valid(file):
    assert isinstance(load_params(PROJECT / file), Params)


def test_every_task_has_a_metric_of_its_own(tmp_path, small_params):
    path = write(tmp_path, small_params)
    assert load_params(path).data.metric == "accuracy"
    assert load_params(path, ["data.task=causal-lm"]).data.metric == "perplexity"
    for change, message in (
        ("data={task: causal-lm, metric: f1, source: x, holdout: 2}", "not scored by f1, but by"),
        ("data.metric=perplexity", "text-classification is not scored by perplexity"),
        ("data={task: causal-lm, text: [a, b], source: x, holdout: 2}", "one column of `text`"),
        ("data.task=[causal-lm]", "data.task"),
    ):
        with pytest.raises(InputError, match=message):
            load_params(path, [change])


def test_group_overrides_section(tmp_path, small_params):
    quantize = load_params(write(tmp_path, small_params)).quantize
    ffn, embeddings = (quantize.settings(group) for group in quantize.groups)
    assert (ffn.block_size, embeddings.block_size) == (4, 8)
    assert ffn.codebook_size == embeddings.codebook_size == 16


def test_codes_are_not_re_assigned_without_the_sensitivity_they_were_chosen_by(
    tmp_path, small_params
):
    path = write(tmp_path, small_params)
    both = ["quantize.finetune.reassign_steps=5", "quantize.groups.ffn.sensitivity=fisher"]
    for one in both:
        load_params(path, [one])
    with pytest.raises(InputError, match="reassign_steps"):
        load_params(path, both)


def test_a_group_may_be_finetuned_otherwise(tmp_path, small_params):
    path = write(tmp_path, small_params)
    own = ["quantize.finetune.temperature=3.0", "quantize.groups.ffn.finetune={max_steps: 77}"]
    quantize = load_params(path, own).quantize
    ffn, embeddings = quantize.recovery("ffn"), quantize.recovery("embeddings")
    assert ffn.max_steps == 77 and ffn.temperature == embeddings.temperature == 3.0
    assert embeddings == quantize.finetune
    assert ffn == embeddings.model_copy(update={"max_steps": 77})
    with pytest.raises(InputError, match=r"groups\.0\.finetune\.max_step"):
        load_params(path, ["quantize.groups.ffn.finetune={max_step: 7}"])
    with pytest.raises(InputError, match=r"augment"):
        load_params(path, ["quantize.groups.ffn.finetune={augment: 0.1, label_weight: 1}"])


def test_a_recovery_has_something_to_learn_from(tmp_path, small_params):
    path = write(tmp_path, small_params)
    none = [f"quantize.finetune.{kind}_weight=0" for kind in ("logits", "hidden", "label")]
    load_params(path, [*none[:2], "quantize.finetune.label_weight=1"])
    with pytest.raises(InputError, match="nothing to learn from"):
        load_params(path, none)


def test_labels_are_not_learned_from_texts_with_other_words(tmp_path, small_params):
    path = write(tmp_path, small_params)
    both = ["quantize.finetune.augment=0.2", "quantize.finetune.label_weight=0.5"]
    for one in both:
        load_params(path, [one])
    with pytest.raises(InputError, match="augment"):
        load_params(path, both)


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("quantize.codebook_size=128", lambda p: p.quantize.codebook_size, 128),
        ("quantize.groups.ffn.block_size=2", lambda p: p.quantize.groups[0].block_size, 2),
        ("quantize.groups.1.block_size=2", lambda p: p.quantize.groups[1].block_size, 2),
        ("finetune.learning_rate=1e-4", lambda p: p.finetune.learning_rate, 1e-4),
        ("gate={max_drop: 1, min_ratio: 2}", lambda p: p.gate.max_drop, 1.0),
    ],
)
def test_override(tmp_path, small_params, override, read, value):
    assert read(load_params(write(tmp_path, small_params), [override])) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quantize.codebok_size=128", "quantize.codebok_size: unknown key"),
        ("quantize.groups.nope.block_size=2", "no item `nope`"),
        ("quantize.codebook_size", "expected section.key=value"),
        ("seed.deeper=1", "is a value, not a section"),
        ("noise.rate=1.5", "noise.rate"),
        ("data.holdout=12", "either `validation`"),
        ("quantize.codebook_size=70000", "quantize.codebook_size"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_bad_override_names_the_place(tmp_path, small_params, override, message):
    small_params["seed"] = 0
    with pytest.raises(InputError, match="(?s)" + message.replace(".", r"\.")):
        load_params(write(tmp_path, small_params), [override])


def test_every_problem_is_listed_at_once(tmp_path, small_params):
    small_params["quantize"]["nonsense"] = 1
    small_params["finetune"]["batch_size"] = 0
    with pytest.raises(InputError) as error:
        load_params(write(tmp_path, small_params))
    assert "quantize.nonsense" in str(error.value)
    assert "finetune.batch_size" in str(error.value)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "just words"])
def test_file_that_is_no_params(tmp_path, text):
    with pytest.raises(InputError, match="params.yaml"):
        load_params(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_params(tmp_path / "none.yaml")


def keys_of(section: type) -> set[str]:
    """Every key of a section and of the sections in it."""
    found = set()
    for name, field in section.model_fields.items():
        found.add(name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                found |= keys_of(inner)
    return found


def test_docs_explain_every_key():
    page = (PROJECT / "docs" / "params.md").read_text(encoding="utf-8")
    unexplained = [k for k in keys_of(Params) if not re.search(rf"(^## .*|`|\.){k}\b", page, re.M)]
    assert not unexplained
