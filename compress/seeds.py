"""The seed of a layer follows from its name: the order of the work makes no difference."""

import hashlib

SEED_BITS = 63  # what torch.manual_seed takes without wrapping


def layer_seed(seed: int, name: str) -> int:
    """The seed of the layer `name` in a run with `seed`; in [0, 2^63)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> (64 - SEED_BITS)
