"""Folders of checkpoints that are changed, or put where the hub keeps them."""

import json
import shutil

import numpy as np

COMMIT = "0123456789abcdef0123456789abcdef01234567"
META = "facebook/DiT-XL-2-256"
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def edited_dit(folder, target, **changes):
    shutil.copytree(folder, target)
    path = target / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


def cached(folder, cache, name, owner="someone"):
    """Put a folder into a hub cache as if its files had been downloaded."""
    repository = cache / f"models--{owner}--{name}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
