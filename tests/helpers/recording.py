"""Features and stored keys of every small checkpoint, and the script to record them.

From the root, ``PYTHONPATH=tests python -m helpers.recording`` writes
``tests/recorded/`` anew: only when features or keys are meant to change.
"""

import hashlib
import json
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from conftest import build_masked_lm, save_dit, word_tokenizer
from helpers import image_checkpoints, text_checkpoints
from PIL import Image

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
)

RECORDED = Path(__file__).parents[1] / "recorded"
# A file, as Pillow's releases compress pictures to other bytes.
PNG = RECORDED / "picture.png"
N_PROJECTED = 4
PLACEHOLDER = "the checkpoint's fingerprint"
EMBEDDED = {"dit-tiny": "image", "mdlm-tiny": "text"}
IMAGE = list(image_checkpoints.FAMILIES)
SMALL = (
    dict.fromkeys(IMAGE, "image")
    | {"dit-legacy": "image"}
    | dict.fromkeys(text_checkpoints.FAMILIES, "text")
    | {"modernbert-sliding": "text"}
)
CHECKPOINTS = EMBEDDED | SMALL

MEAN = {"pooling": "mean", "norm": None}
SEVERAL = {"block": [0, "middle", "last"], "timestep": [0, 100, 600]} | MEAN
CASES = {
    "image": {
        "mean": SEVERAL | {"random_state": 3},
        "max": {
            "block": [1, -1],
            "timestep": 300,
            "pooling": "max",
            "n_draws": 2,
            "norm": None,
        },
        "grid": {
            "block": "middle",
            "timestep": [0, 300],
            "pooling": ("grid", 2),
            "norm": None,
        },
    },
    "text": {
        "mean": SEVERAL | {"random_state": 3},
        "max": {
            "block": [1, -1],
            "timestep": 300,
            "pooling": "max",
            "n_draws": 2,
            "norm": None,
        },
        "short": {"block": "middle", "timestep": [0, 500], "max_length": 6} | MEAN,
    },
}
PROMPT = {"block": [1, "last"], "timestep": 300, "prompt": "a red boat"} | MEAN
TEXTS = [
    "house",
    "a red apple",
    "the small bird and the blue boat",
    "",
    "a größe Ä 青い boat \N{RED APPLE}",
    "a large red flag on the green house and " * 20,
    " the  flag\tof\nthe boat ",
    "A Red APPLE!",
]


def pictures():
    """One picture of each kind of cell, none of them square but one."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.integers(0, 256, shape, np.uint8)

    palette = Image.frombytes("P", (24, 18), draw(18, 24).tobytes())
    palette.putpalette(draw(256 * 3).tolist())
    palette.info["transparency"] = 7
    turned = Image.fromarray(draw(20, 36))
    turned.getexif()[0x0112] = 6
    return [
        draw(40, 56, 3),
        draw(32, 32, 3),
        PNG.read_bytes(),
        str(PNG),
        Image.fromarray(draw(30, 44, 4)),
        rng.random((26, 34, 3), np.float32),
        palette,
        turned,
        rng.integers(0, 65536, (21, 33), np.uint16),
    ]


def save(name, folder):
    """Return what the transformers take as the backbone, saved where it is small."""
    if name in EMBEDDED:
        return name
    if name == "dit-legacy":
        save_dit(folder, legacy=True)
    elif name == "modernbert-sliding":
        build_masked_lm("modernbert", local_attention=4).save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)
    elif name in IMAGE:
        image_checkpoints.save_pipeline(name, folder)
    else:
        text_checkpoints.save(name, folder)
    return folder


def measure(name, folder):
    """Return the features by case, reduced, and what the store says of their rows."""
    backbone, modality = save(name, folder), CHECKPOINTS[name]
    info = describe_backbone(backbone, trust_remote_code=True)
    options = {"device": "cpu", "dtype": "float32", "batch_size": 4}
    cases = dict(CASES[modality])
    if modality == "image":
        kind, X = ImageDiffusionFeatureTransformer, pictures()
        options |= {} if name in EMBEDDED else {"image_size": 32}
        cases |= {"prompt": PROMPT} if info.takes_prompt else {}
    else:
        kind, X = TextDiffusionFeatureTransformer, TEXTS
    cache = str(folder / "features.db")
    features = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*were cut", category=UserWarning)
        for case, own in cases.items():
            made = kind(
                backbone, **options | own, cache=cache, trust_remote_code=True
            ).fit(X)
            computed = np.asarray(made.transform(X))
            # What was stored is what was computed.
            np.testing.assert_array_equal(np.asarray(made.transform(X)), computed)
            names = [str(one) for one in made.get_feature_names_out()]
            features[case] = reduce(computed, names)
    return features, stored_keys(cache, info.fingerprint, exact=name in EMBEDDED)


def reduce(features, names):
    """Project the columns of each block and timestep to ``N_PROJECTED`` numbers.

    Returns
    -------
    ndarray of shape (n_groups, n_rows, N_PROJECTED), float32
    """
    groups = np.array([name.rpartition("_")[0] for name in names])
    reduced = []
    for group in dict.fromkeys(groups):
        columns = features[:, groups == group]
        n = columns.shape[1]
        projection = np.random.default_rng(1).standard_normal((n, N_PROJECTED))
        reduced.append(columns @ projection / np.sqrt(n))
    return np.asarray(reduced, np.float32)


def stored_keys(path, fingerprint, *, exact):
    """Return what a store's file says of its rows, read without the package.

    The fingerprint of a checkpoint that was just made depends on the versions that
    made it, and so do the numbers of its spaces: those are checked here.
    """
    with closing(sqlite3.connect(path)) as store:
        (version,) = store.execute("PRAGMA user_version").fetchone()
        (application,) = store.execute("PRAGMA application_id").fetchone()
        spaces = store.execute("SELECT description, id FROM space").fetchall()
        chunks = store.execute(
            "SELECT id, space, timestep, draw, deepest, digests, truncated FROM chunk "
            "ORDER BY id"
        ).fetchall()
        blocks = store.execute(
            "SELECT DISTINCT space, block, dtype, width FROM pooled "
            "JOIN chunk ON chunk.id = chunk ORDER BY space, block"
        ).fetchall()
    rows = {}
    for _, space, timestep, draw, deepest, digests, truncated in chunks:
        found = rows.setdefault((space, timestep, draw, deepest), {})
        for i, cut in enumerate(truncated):
            found[digests[16 * i : 16 * i + 16].hex()] = cut
    described = []
    for text, number in spaces:
        content = hashlib.blake2b(text.encode(), digest_size=8).digest()
        assert number == int.from_bytes(content, "big") >> 1
        assert json.loads(text)["backbone"] == fingerprint
        # Passes of the same rows stand together, so that each row is listed once.
        passes = {}
        for (space, *one), found in sorted(rows.items()):
            if space == number:
                passes.setdefault(tuple(sorted(found.items())), []).append(
                    "{} {} {}".format(*one)
                )
        described.append(
            {
                "id": number if exact else None,
                "description": text
                if exact
                else text.replace(fingerprint, PLACEHOLDER),
                "block dtype width": [
                    f"{block} {dtype} {width}"
                    for space, block, dtype, width in blocks
                    if space == number
                ],
                "rows": [
                    {"timestep draw deepest": ones, "digest and cut": dict(found)}
                    for found, ones in passes.items()
                ],
            }
        )
    return {
        "application_id": application,
        "version": version,
        "spaces": sorted(described, key=lambda one: one["description"]),
    }


def main():
    arrays, keys = {}, {}
    for name in CHECKPOINTS:
        with TemporaryDirectory() as code, TemporaryDirectory() as folder:
            with text_checkpoints.remote_code_in(code):
                features, keys[name] = measure(name, Path(folder))
        arrays |= {f"{name}/{case}": array for case, array in features.items()}
    np.savez_compressed(RECORDED / "features.npz", **arrays)
    (RECORDED / "keys.json").write_text(json.dumps(keys, indent=1) + "\n")


if __name__ == "__main__":
    main()
