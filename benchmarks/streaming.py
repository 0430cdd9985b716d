"""Layer streaming on a generated checkpoint, in a process that may hold 3 GB of address space.

    python -m benchmarks.streaming                       4 billion weights, 8 GB in bf16
    python -m benchmarks.streaming --parameters 0.3e9    a quick one
    python -m benchmarks.streaming --json FILE           also writes the numbers
    python -m benchmarks.streaming --keep FOLDER         uses the checkpoint in it, if there is one

The checkpoint has the shapes of Llama 3 8B, half of its layers and a tied head: normal values whose
scale differs by row, in shards of 2 GB. RLIMIT_AS counts all that the process maps, libraries too:
more than it ever holds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compress.blocks import row_ranges
from compress.shards import Shard, ShardWriter, plan_shards, write_index

LIMIT = 3_000_000_000
SHARD = 2_000_000_000
BANK = 1 << 25  # normal values, of which every tensor takes runs from places of its own
LARGE = {"hidden": 4096, "inner": 14336, "heads": 32, "vocabulary": 128256}  # of Llama 3 8B
SMALL = {"hidden": 1024, "inner": 2816, "heads": 8, "vocabulary": 32000}
KEY_HEADS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=float, default=4e9)
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes of address space")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", nargs=3, type=Path, metavar=("SOURCE", "OUT", "LAYERS"))
    args = parser.parse_args()
    if args.child:
        source, out, layers = args.child
        print(json.dumps(measure(source, out, layers, args.limit)))
        return
    with tempfile.TemporaryDirectory(dir=args.keep) as temporary:
        source = (args.keep or Path(temporary)) / "source"
        if not source.exists():
            generate(source, args.parameters)
        found = benchmark(source, Path(temporary), args.limit)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def benchmark(source: Path, folder: Path, limit: int) -> dict[str, Any]:
    """Streams in a limited process, and streams again to see what a rerun costs."""
    facts: dict[str, Any] = {"limit": limit, "threads": torch.get_num_threads()}
    command = [sys.executable, "-m", "benchmarks.streaming", "--limit", str(limit), "--child"]
    paths = [str(source), *(str(folder / name) for name in ("out", "layers"))]
    for run in ("first", "again"):
        done = subprocess.run([*command, *paths], check=True, stdout=subprocess.PIPE, text=True)
        facts[run] = json.loads(done.stdout.splitlines()[-1])
        print(f"{run}: {facts[run]['seconds']:.0f} s", file=sys.stderr)
    facts["files"] = len(list((folder / "out").glob("*.safetensors")))
    facts["parameters"] = facts["first"]["bytes_before"] // torch.bfloat16.itemsize
    return facts


def generate(folder: Path, parameters: float) -> None:
    """Writes a bf16 checkpoint of about so many weights, a part of a tensor at a time."""
    from transformers import LlamaConfig

    size = LARGE if parameters > 1e9 else SMALL
    hidden, inner, vocabulary = size["hidden"], size["inner"], size["vocabulary"]
    keys = hidden // size["heads"] * KEY_HEADS
    matrices = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    each = sum(torch.Size(shape).numel() for shape in matrices.values())
    depth = max(1, round((parameters - vocabulary * hidden) / each))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(depth):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in matrices.items()}
    shapes["model.norm.weight"] = (hidden,)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=depth,
        num_attention_heads=size["heads"],
        num_key_value_heads=KEY_HEADS,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
        dtype=torch.bfloat16,
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    layouts = [{name: (torch.bfloat16, shape)} for name, shape in shapes.items()]
    shards = plan_shards(layouts, SHARD)
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(BANK, generator=generator)
    for shard in shards:
        _write(folder, shard, bank, generator)
    write_index(folder, shards)


def _write(folder: Path, shard: Shard, bank: torch.Tensor, generator: torch.Generator) -> None:
    with ShardWriter(folder / shard.name, shard.layout) as writer:
        for name, (_, shape) in shard.layout.items():
            if len(shape) == 1:
                writer.write(name, torch.ones(shape, dtype=torch.bfloat16))
                continue
            for low, high in row_ranges(shape):
                size = (high - low) * shape[1]
                start = int(torch.randint(BANK - size, (1,), generator=generator))
                scale = 0.02 * torch.exp(0.2 * torch.randn(high - low, generator=generator))
                part = bank[start : start + size].view(high - low, shape[1]) * scale[:, None]
                writer.write(name, part.bfloat16(), low)


def measure(source: Path, out: Path, layers: Path, limit: int) -> dict[str, Any]:
    """Streams under the limit; numbers of the run and of this process."""
    import compress.streaming  # noqa: F401 (what the program itself takes is counted apart)
    from tasks.streaming import stream

    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    base = status("VmRSS")
    started, processor = time.perf_counter(), time.process_time()
    summary = stream(source, out, {}, seed=0, layers=layers)
    seconds = time.perf_counter() - started
    return asdict(summary) | {
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "program": base,
        "address_space": status("VmPeak"),
        "factor": summary.peak_memory / summary.largest,
        "factor_beyond_program": (summary.peak_memory - base) / summary.largest,
        "gigabytes_a_second": summary.bytes_before / seconds / 1e9,
    }


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    first, again = found["first"], found["again"]
    rows = [
        ("weights", f"{found['parameters']:,}"),
        ("limit on the address space", f"{found['limit'] / 1e9:.2f} GB"),
        ("address space used at most", f"{first['address_space'] / 1e9:.2f} GB"),
        ("memory held at most", f"{first['peak_memory'] / 1e9:.2f} GB"),
        ("of it the program itself", f"{first['program'] / 1e9:.2f} GB"),
        ("largest tensor", f"{first['largest'] / 1e9:.2f} GB"),
        ("memory / largest tensor", f"{first['factor']:.2f}"),
        ("the same less the program", f"{first['factor_beyond_program']:.2f}"),
        ("bytes before", f"{first['bytes_before'] / 1e9:.2f} GB"),
        ("bytes after", f"{first['bytes_after'] / 1e9:.3f} GB in {found['files']} files"),
        ("relative distortion", f"{first['relative_distortion']:.4f}"),
        ("compressed layers", str(first["layers"])),
        ("seconds", f"{first['seconds']:.0f}"),
        ("processor seconds", f"{first['processor_seconds']:.0f}"),
        ("GB a second", f"{first['gigabytes_a_second']:.3f}"),
        ("again, all layers finished", f"{again['seconds']:.0f} s, {again['found']} found"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


if __name__ == "__main__":
    main()
