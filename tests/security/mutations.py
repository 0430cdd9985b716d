"""Seeded damage to JSON-like values, to safetensors files, and to folders of a model.

Each mutation draws from the `random.Random` it is given, so that case N is the same on every run.
"""

import copy
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BAD_TEXT = ["", "../../x", "/etc/passwd", "\0", "a" * 5000, "\u202eabc", "é", "\ud800", "__class__"]
BAD_NUMBERS = [-1, 0, 1, 2, 3, 7, 255, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, -0.0]
BAD_VALUES = [None, True, False, [], {}, [[]], {"a": {"b": []}}, float("nan"), float("inf")]
INDEX = "model.safetensors.index.json"


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below `node`."""
    found = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        inner = (*path, key)
        found += places(value, inner) if isinstance(value, dict | list) and value else [inner]
    return found


def deep(draw: random.Random) -> Any:
    node: Any = 1
    for _ in range(draw.choice([5, 20, 100])):
        node = [node] if draw.random() < 0.5 else {"x": node}
    return node


def bad_value(draw: random.Random, old: Any) -> Any:
    """Something in the place of `old`: of another type, another size, or just beside it."""
    kind = draw.randrange(7)
    if kind == 0 and isinstance(old, int) and not isinstance(old, bool):
        return old + draw.choice([-1, 1, old, 1000])
    if kind == 1 and isinstance(old, str) and old:
        at = draw.randrange(len(old))
        return old[:at] + draw.choice(["", "x", ".", "/", " ", "\n"]) + old[at + 1 :]
    if kind == 2:
        return deep(draw) if draw.random() < 0.3 else [old]
    if kind == 3:
        return {"x": old}
    if kind == 4:
        return draw.choice(BAD_TEXT)
    return draw.choice(BAD_NUMBERS if kind == 5 else BAD_VALUES)


def mutate_tree(draw: random.Random, tree: Any, inside: tuple[Any, ...] = ()) -> Any:
    """A copy of `tree` with one to three values below the path `inside` changed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        known = [p for p in places(tree) if p[: len(inside)] == inside]
        if not known:
            break
        path = draw.choice(known)
        node = tree
        for key in path[:-1]:
            node = node[key]
        last = path[-1]
        action = draw.randrange(6)
        if action == 0:
            del node[last]
        elif action == 1 and isinstance(node, list):
            node.insert(last, copy.deepcopy(node[draw.randrange(len(node))]))
        elif action == 1:
            node[draw.choice([str(last) + "x", "__class__", "auto_map", "../x"])] = node[last]
        elif action == 2:
            other = tree
            for key in draw.choice(known):
                if not isinstance(other, dict | list):
                    break
                try:
                    other = other[key]
                except (KeyError, IndexError, TypeError):
                    break
            node[last] = copy.deepcopy(other)
        else:
            node[last] = bad_value(draw, node[last])
    return tree


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def flip_bits(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 16])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.choice([0, 7, 8, 9, len(content) - 1, draw.randrange(len(content))])]


def extend(draw: random.Random, content: bytes) -> bytes:
    return content + draw.choice([b"\0", b"x" * 64, content])


def nested(draw: random.Random, content: bytes) -> bytes:
    """A JSON object with lists in lists, deeper than any stack."""
    return b'{"x": ' + b"[" * draw.choice([900, 100_000]) + content


def wrong_length(draw: random.Random, content: bytes) -> bytes:
    (size,) = struct.unpack("<Q", content[:8])
    sizes = [0, 1, size - 1, size + 1, size + 8, 2**31, 2**63, 2**64 - 1]
    return struct.pack("<Q", draw.choice(sizes)) + content[8:]


def wrong_header(draw: random.Random, content: bytes) -> bytes:
    header, data = split(content)
    return join(mutate_tree(draw, header), data)


def twice(draw: random.Random, content: bytes) -> bytes:
    """A tensor listed twice, the second time with the place of another one."""
    header, data = split(content)
    names = [n for n in header if n != "__metadata__"]
    entry = json.dumps({draw.choice(names): header[draw.choice(names)]})[1:-1]
    return join(f"{json.dumps(header)[:-1]}, {entry}}}".encode(), data)


def swapped(draw: random.Random, content: bytes) -> bytes:
    """Two tensors of one shape and dtype change places."""
    header, data = split(content)
    names = [n for n in header if n != "__metadata__"]
    first = draw.choice(names)
    alike = [
        n
        for n in names
        if n != first and all(header[n][k] == header[first][k] for k in ("dtype", "shape"))
    ]
    second = draw.choice(alike or names)
    header[first], header[second] = header[second], header[first]
    return join(header, data)


def codes_outside(draw: random.Random, content: bytes) -> bytes:
    """Every code of one layer becomes the largest that its bits can hold."""
    header, data = split(content)
    name = draw.choice([n for n in header if n.endswith(".codes")])
    start, end = header[name]["data_offsets"]
    return join(header, data[:start] + b"\xff" * (end - start) + data[end:])


def coded_anew(draw: random.Random, content: bytes) -> bytes:
    """Somewhere in the codes of a layer, packed or entropy-coded, are other bytes."""
    header, data = split(content)
    start, end = header[draw.choice([n for n in header if n.endswith(".codes")])]["data_offsets"]
    at = start + draw.randrange(min(end - start, draw.choice([4, 16, 10**9])))
    size = draw.randrange(1, 1 + min(16, end - at))
    return join(header, data[:at] + draw.randbytes(size) + data[at + size :])


def not_finite(draw: random.Random, content: bytes) -> bytes:
    header, data = split(content)
    name = draw.choice([n for n in header if n.endswith(".codebook")])
    start, end = header[name]["data_offsets"]
    value = np.float16(draw.choice([np.nan, np.inf, -np.inf])).tobytes()
    return join(header, data[:start] + value + data[start + 2 : end] + data[end:])


WEIGHTS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    flip_bits, flip_bits, cut, extend, wrong_length, wrong_header, wrong_header, twice, swapped,
    codes_outside, coded_anew, not_finite,
)  # fmt: skip


def dump(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree), encoding="utf-8")


def damage(draw: random.Random, folder: Path) -> str:
    """Damages the model in `folder`, which is a copy; returns what was done."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = folder / "model.safetensors"
    kind = draw.choice(["config", "layers", "layers", "weights", "both", "both", "json", "files"])
    if kind == "config":
        ours = config.pop("quantization_config")
        config = mutate_tree(draw, config)
        dump(folder / "config.json", config | ({"quantization_config": ours} if ours else {}))
    if kind == "layers":
        dump(folder / "config.json", mutate_tree(draw, config, ("quantization_config",)))
    if kind in ("weights", "both"):
        change = draw.choice(WEIGHTS)
        weights.write_bytes(change(draw, weights.read_bytes()))
        kind += f" {change.__name__}"
    if kind.startswith("both"):  # whoever changes the file can change its digest, too
        from compress.verify import file_digest

        consistent = draw.choice([{}, {weights.name: file_digest(weights)}])
        config["quantization_config"]["sha256"] = consistent
        if draw.random() < 0.3:
            config = mutate_tree(draw, config, ("quantization_config", "layers"))
        dump(folder / "config.json", config)
    if kind == "json":
        content = (folder / "config.json").read_bytes()
        change = draw.choice([flip_bits, cut, extend, nested])
        (folder / "config.json").write_bytes(change(draw, content))
    if kind == "files":
        kind += f" {damage_files(draw, folder, config)}"
    return kind


def damage_files(draw: random.Random, folder: Path, config: dict[str, Any]) -> str:
    """Files that are missing, elsewhere, something else, or led to by an index."""
    weights, kind = folder / "model.safetensors", draw.randrange(8)
    if kind == 0:
        draw.choice([weights, folder / "config.json"]).unlink()
    if kind == 1:
        os.rename(weights, folder / draw.choice(["x.safetensors", "pytorch_model.bin"]))
    if kind == 2:
        weights.unlink()
        weights.symlink_to(draw.choice(["/dev/zero", "/dev/null", "model.safetensors", "/proc"]))
    if kind == 3:
        weights.unlink()
        os.mkfifo(weights)
    if kind in (4, 5):
        target = draw.choice(["../other.safetensors", "/dev/zero", "a/../m.safetensors", "m.st"])
        os.rename(weights, folder / "m.st")
        names = split((folder / "m.st").read_bytes())[0]
        index = {"metadata": {}, "weight_map": {n: target for n in names if n != "__metadata__"}}
        dump(folder / INDEX, mutate_tree(draw, index) if kind == 5 else index)
    if kind == 6:
        config["transformers_weights"] = draw.choice(["../x.safetensors", "adapter_model.bin", "x"])
        dump(folder / "config.json", config)
    if kind == 7:
        size = draw.choice(["num_hidden_layers", "num_labels", "vocab_size", "hidden_size"])
        config[size] = draw.choice([10**7, 10**9, 10**18])
        dump(folder / "config.json", config)
    return str(kind)
