"""1,000 damaged params files: each is refused with one of our errors, or read."""

import copy
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from compress.errors import InputError
from compress.params_yaml import load_params
from compress.selection import matches
from compress.sources import local_path
from tests.flows.workspaces import TINY
from tests.security.mutations import cut, deep, mutate_tree

CASES = 1000
SECONDS = 5.0  # of one case; an undamaged file takes 0.01
WHOLE = Path(__file__).parents[2] / "params.yaml"

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
)
SNIPPETS = [
    BOMB,
    BOMB.replace("a11:", "groups:"),
    "a: &a [*a]",
    "a: &a {b: *a}\nquantize: *a",
    "quantize: &q\n  groups: [*q]",
    "<<: [*x]",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "seed: !!python/object/apply:os.system ['touch /tmp/shrinkflow-was-here']",
    "seed: !!python/name:os.system",
    "seed: !!python/object/new:os.system [x]",
    "seed: !!int x",
    "seed: !!float [1]",
    "seed: !!binary '####'",
    "seed: !!timestamp x",
    "seed: 2001-99-99",
    "seed: " + "9" * 5000,
    "seed: 0x" + "f" * 5000,
    "seed: 1" + ":59" * 2000,
    "seed: .nan",
    "seed: 1e999",
    "gate: {max_drop: .inf}",
    "gate: {min_ratio: .nan}",
    "tracking: {uri: '\\0'}",
    'tracking: {model_name: "\\ud800"}',
    'model: {source: "\\0"}',
    "data: {source: '~nobody/x'}",
    "[" * 50_000,
    "{a: " * 20_000,
    "- " * 20_000 + "x",
    "%YAML 9.9\n---\na: b",
    "---\na: b\n---\nc: d",
    "\ufeff" + "a: b",
    "a: \x00",
    "\x1b[2J: x",
    "key: " + "x" * 300_000,
]


def places(folder: Path):
    """What a command does first with a params file: read it, look for what its sources name."""
    params = load_params(folder / "params.yaml")
    local_path(params.model.source, folder)
    local_path(params.data.source, folder)
    for group in params.quantize.groups:
        for pattern in group.layers:
            matches(pattern, "bert.encoder.layer.0.attention.self.query")
    return params


def damage(draw: random.Random, text: str) -> bytes:
    kind = draw.randrange(8)
    tree = copy.deepcopy(TINY)
    if kind < 4:
        try:
            return yaml.safe_dump(
                mutate_tree(draw, tree), allow_unicode=draw.random() < 0.5
            ).encode(errors="surrogatepass")
        except yaml.YAMLError:
            kind = 4
    if kind == 4:
        return f"{text}\n{draw.choice(SNIPPETS)}\n".encode(errors="surrogatepass")
    if kind == 5:
        lines = text.splitlines()
        at = draw.randrange(len(lines))
        mark = draw.choice(["\t", "  ", "- ", "&a ", "*a ", "!!set ", "? ", "'", "{", "%", "@"])
        lines[at] = draw.choice([mark + lines[at], lines[at] + mark, lines[at].replace(":", mark)])
        return "\n".join(lines).encode()
    if kind == 6:
        tree[draw.choice(list(tree))] = deep(draw)
        return yaml.safe_dump(tree).encode()
    changed = bytearray(cut(draw, text.encode()) if draw.random() < 0.3 else text.encode())
    for _ in range(draw.choice([1, 2, 20])):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def outcome(folder: Path) -> str:
    """`read` or `refused`; anything else is what went wrong."""
    started = time.monotonic()
    try:
        places(folder)
        found = "read"
    except InputError as error:
        found = "refused" if str(error).strip() else "refused without a word"
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    return found if seconds < SECONDS else f"{seconds:.0f} s, then {found}"


def test_damaged_params_are_refused_or_read(tmp_path):
    text = yaml.safe_dump(TINY)
    seen: Counter[str] = Counter()
    for case in range(CASES):
        draw = random.Random(f"params {case}")
        (tmp_path / "params.yaml").write_bytes(damage(draw, text))
        found = outcome(tmp_path)
        assert found in ("read", "refused"), f"case {case}: {found[:300]}"
        seen[found] += 1
    assert min(seen["read"], seen["refused"]) > CASES / 20, seen


@pytest.mark.parametrize("snippet", range(len(SNIPPETS)))
def test_each_known_trick_is_refused(tmp_path, snippet):
    (tmp_path / "params.yaml").write_bytes(SNIPPETS[snippet].encode(errors="surrogatepass"))
    assert outcome(tmp_path) == "refused"
    assert not Path("/tmp/shrinkflow-was-here").exists()


@pytest.mark.parametrize("key", ["gate.max_drop", "finetune.epochs", "finetune.learning_rate"])
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_are_finite(key, value):
    with pytest.raises(InputError, match=key):
        load_params(WHOLE, [f"{key}={value}"])


@pytest.mark.parametrize(
    "override",
    [
        "a" + ".a" * 5000 + "=1",
        "seed=" + "[" * 5000,
        "seed=9" + "9" * 5000,
        "model=&a [*a]",
        "a\0=1",
    ],
)
def test_overrides_are_as_careful(override):
    with pytest.raises(InputError):
        load_params(WHOLE, [override])


def test_patterns_take_no_longer_than_their_length():
    """Each `**` stands for any number of parts: tried one by one, this would take for ever."""
    pattern = ".".join(["**", "a*a*a*a"] * 30)
    assert not matches(pattern, ".".join(["aaaaaaaaaaaaaaaaaaaaaaaab"] * 60))
    assert matches("**." * 5000 + "query", "bert.encoder.layer.0.attention.self.query")
    assert matches("**.layer.**", "bert.layer") and not matches("**.layer", "bert.layer.0")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "params.yaml")
    for path in (tmp_path / "params.yaml", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="cannot be read"):
            load_params(path)
