"""What the protocols share: arguments, passes, search, final fit and the table."""

import argparse
import json
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.utils import Bunch

from sklearn_difffeat import (
    BlockTimestepDisplay,
    FeatureStore,
    FusionClassifier,
    FusionClassifierCV,
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
    multilabel_report,
)

KINDS = {
    "image": ImageDiffusionFeatureTransformer,
    "text": TextDiffusionFeatureTransformer,
}
C_GRID = [0.001, 0.003, 0.01, 0.03, 0.1]
IMAGE_WEIGHTS = [0, 0.25, 0.5, 0.75, 1.0]
# C and weights are chosen on at most so many training rows, and then all are fitted.
HEAD_ROWS = 10_000
MAX_CANDIDATES = 40
FOLDS = 3
# Rows that --estimate measures at a time, until the seconds are spent.
SAMPLES, SAMPLE_SECONDS = (16, 32, 64, 128, 256), 20


@dataclass
class Protocol:
    """A data set with its two parts, and what others published on it.

    Attributes
    ----------
    name : str
    train, test : Bunch
        As the readers of ``sklearn_difffeat.datasets`` return them.
    published : list of (str, str, float, str)
        Method, its inputs, mAP or top-1 in percent, and who says so.
    """

    name: str
    train: Bunch
    test: Bunch
    published: list = field(default_factory=list)

    @property
    def modalities(self):
        return [name for name in KINDS if name in self.train.data]

    @property
    def is_multilabel(self):
        return self.train.target.ndim == 2


def parser_of(about, name, captions=False):
    """Return the arguments that every protocol takes."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    add = parser.add_argument
    add("--root", required=True, help="folder of the data set")
    add("--backbone", default="dit-tiny", help="name, hub id or folder, for images")
    add("--rows", type=int, help="rows of each part, at random; default all")
    add("--search-rows", type=int, default=2000, help="training rows to search on")
    add("--timesteps", type=int, nargs="+", default=[0, 50, 100, 200, 300])
    add("--cache", type=Path, help=f"feature store; default output/{name}/features.db")
    add("--out", type=Path, default=Path("output", name), help="folder of the results")
    add("--estimate", action="store_true", help="say hours and gigabytes, and stop")
    add("--device", help="torch device; default the best there is")
    if captions:
        add("--text-backbone", default="mdlm-tiny", help="as --backbone, for texts")
        add("--text-timesteps", type=int, nargs="+", default=[0, 100, 300])
        add("--captions", choices=["join", "first"], default="join")
    return parser


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


@contextmanager
def timing(seconds, name):
    """Add the seconds that a step takes to a dict."""
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started


@contextmanager
def expected_warnings():
    """Leave out warnings of what few rows bring with them, and of what was told."""
    with warnings.catch_warnings():
        # The passes before have told it.
        warnings.filterwarnings("ignore", message=".* texts are longer")
        warnings.filterwarnings("ignore", message=".*labels? (are|is) constant in y")
        warnings.filterwarnings("ignore", message=".*labels have no positive in Y_true")
        warnings.filterwarnings("ignore", message="Label .* is present in all training")
        yield


def some_rows(bunch, count, seed=0):
    """Return a part of a data set, at random and in its order."""
    n_rows = len(bunch.data)
    rows = np.arange(n_rows)
    if count is not None and count < n_rows:
        rows = np.sort(np.random.default_rng(seed).permutation(n_rows)[:count])
    by_row = {
        name: values[rows]
        for name, values in bunch.items()
        if isinstance(values, np.ndarray) and len(values) == n_rows
    }
    data = bunch.data.iloc[rows].reset_index(drop=True)
    return Bunch(**bunch | by_row | {"data": data})


def mean_average_precision(model, X, Y):
    """Score by mAP over the labels that these rows have."""
    kept = Y.any(axis=0)
    return average_precision_score(Y[:, kept], model.predict_proba(X)[:, kept])


def scorer_of(Y):
    return mean_average_precision if np.ndim(Y) == 2 else "accuracy"


def choose_head(Z, Y, groups, names, seed=0):
    """Fit the classifier of features, its C and weights chosen on training groups.

    The one place where the protocols and the baselines fit a linear head.

    Parameters
    ----------
    Z : ndarray of shape (n_rows, n_features)
    Y : ndarray of shape (n_rows, n_labels) or (n_rows,)
    groups : ndarray of shape (n_rows,)
    names : dict of str to int
        The modalities and the columns of each, in the order of Z.
    """
    folds = GroupKFold(3, shuffle=True, random_state=seed)
    weights = {next(iter(names)): IMAGE_WEIGHTS} if len(names) > 1 else "auto"
    search = FusionClassifierCV(
        C_GRID,
        weights,
        modalities=names,
        cv=folds,
        scoring=None if np.ndim(Y) == 2 else "accuracy",
    )
    rows = np.random.default_rng(seed).permutation(len(Z))[:HEAD_ROWS]
    search.fit(Z[rows], Y[rows], groups=groups[rows])
    chosen = {"C": search.C_, "modality_weights": search.modality_weights_}
    return FusionClassifier(modalities=names, **chosen).fit(Z, Y)


def transformers_of(protocol, options, cache):
    """Return an unfitted transformer for each modality of the data."""
    names = {"image": options.backbone}
    if "text" in protocol.modalities:
        names["text"] = options.text_backbone
    return {
        kind: KINDS[kind](
            name,
            cache=cache,
            device=options.device,
            missing="nan",
            unreadable="nan",
            verbose=True,
        )
        for kind, name in names.items()
    }


def timesteps_of(kind, options):
    given = options.timesteps if kind == "image" else options.text_timesteps
    return sorted(set(given))


def measure(transformer, cells, timesteps):
    """Measure what rows cost, in a store that is thrown away.

    Returns
    -------
    dict of str to float
        Seconds a row: "first" pass with all blocks and its encoding, "next" pass of the
        same row, "final" pass down to the block that is recommended for the backbone.
        Bytes a row: "pass" with all blocks, "latents".
    """
    cells = cells.dropna()
    with tempfile.TemporaryDirectory() as folder, expected_warnings():
        path = Path(folder, "features.db")
        model = clone(transformer).set_params(cache=path, verbose=False)
        model.fit(cells)
        model.precompute(cells[:4], timesteps=timesteps[:1])  # loads the weights
        started, at, spent = time.perf_counter(), 4, {}
        for size in SAMPLES:
            part = cells[at : at + size]
            fresh = cells[at + size : at + 2 * size]
            if len(fresh) < size and spent:
                break
            fresh = fresh if len(fresh) else cells[:1]
            found = {}
            with timing(found, "first"):
                model.precompute(part, timesteps=timesteps[:1])
            with timing(found, "next"):
                model.precompute(part, timesteps=timesteps[-1:])
            with timing(found, "final"):
                model.precompute(fresh, blocks="auto", timesteps=timesteps[:1])
            counts = {"first": len(part), "next": len(part), "final": len(fresh)}
            spent = {name: found[name] / counts[name] for name in found}
            at += 2 * size
            if time.perf_counter() - started > SAMPLE_SECONDS:
                break
        kept = FeatureStore(path).describe()
        features = kept[kept["kind"] == "features"]
        whole = features[features["blocks"] == model.n_blocks_ + 1]
        latents = kept[kept["kind"] == "latents"]
        spent["pass"] = whole["bytes"].sum() / max(1, whole["rows"].sum())
        spent["latents"] = latents["bytes"].sum() / max(1, latents["rows"].sum())
        spent["share"] = (np.max(model.block_) + 1) / (model.n_blocks_ + 1)
        spent["width"] = model.n_features_out_
    return spent


def estimate(protocol, options):
    """Say how long the protocol will take and how much the store will hold.

    Returns
    -------
    dict of str to float
        Seconds of the passes and of the heads, and bytes of the store.
    """
    n_search = min(options.search_rows, len(protocol.train.data))
    n_rest = len(protocol.train.data) - n_search + len(protocol.test.data)
    total = {"passes": 0.0, "heads": 0.0, "bytes": 0.0}
    width = 0
    for kind, transformer in transformers_of(protocol, options, None).items():
        timesteps = timesteps_of(kind, options)
        cost = measure(transformer, protocol.train.data[kind], timesteps)
        repeats = len(timesteps) - 1
        seconds = n_search * (cost["first"] + repeats * cost["next"])
        seconds += n_rest * cost["final"]
        size = n_search * (len(timesteps) * cost["pass"] + cost["latents"])
        size += n_rest * (cost["share"] * cost["pass"] + cost["latents"])
        say(
            f"{kind}s: {1e3 * cost['first']:.1f} ms for the first pass of a row, "
            f"{1e3 * cost['next']:.1f} ms for another, {1e3 * cost['final']:.1f} ms "
            f"down to the recommended block; {cost['pass'] / 1e3:.1f} kB a pass"
        )
        total["passes"] += float(seconds)
        total["bytes"] += float(size)
        width += int(cost["width"])
    total["heads"] = _seconds_of_heads(protocol, n_search, width)
    hours = (total["passes"] + total["heads"]) / 3600
    say(
        f"{n_search:,} rows at every timestep, {n_rest:,} at one: about {hours:.2f} "
        f"hours ({total['passes'] / 3600:.2f} hours of passes, and roughly "
        f"{total['heads'] / 3600:.2f} hours of fits), and "
        f"{total['bytes'] / 1e9:.2f} GB in the store"
    )
    return total


def _seconds_of_heads(protocol, n_search, width):
    """Guess the time of all fits from one, of noise of the features' shape."""
    part = some_rows(protocol.train, 1000)
    Z = np.random.default_rng(0).normal(size=(len(part.data), width)).astype("f4")
    started = time.perf_counter()
    with expected_warnings():
        FusionClassifier(C=0.1).fit(Z, part.target)
    per_row = (time.perf_counter() - started) / len(Z)
    n_train = len(protocol.train.data)
    # Half the candidates allowed are a usual walk; single modalities are half as wide.
    # FusionClassifierCV takes about a fifth of the time of its fits one by one.
    walk = MAX_CANDIDATES / 2 * (FOLDS - 1) * n_search
    n_fits = 2 * (len(IMAGE_WEIGHTS) + 1) * len(C_GRID) / 5
    return per_row * (walk + n_fits * min(n_train, HEAD_ROWS) + 2 * n_train)


def search_places(part, transformers, options):
    """Walk to the blocks and timesteps of all modalities, on a part of the rows."""
    space = {}
    for kind, transformer in transformers.items():
        n_blocks = clone(transformer).fit(part.data[kind]).n_blocks_
        space[f"features__{kind}__block"] = list(range(1, n_blocks + 1))
        space[f"features__{kind}__timestep"] = timesteps_of(kind, options)
    quiet = {k: clone(t).set_params(verbose=False) for k, t in transformers.items()}
    model = make_fusion_pipeline(
        *((kind, transformer, kind) for kind, transformer in quiet.items()),
        classifier=FusionClassifier(C=0.1),
    )
    search = LocalSearchCV(
        model,
        space,
        scoring=scorer_of(part.target),
        cv=GroupKFold(FOLDS, shuffle=True, random_state=0),
        max_candidates=MAX_CANDIDATES,
        refit=False,
        verbose=1,
    )
    return search.fit(part.data, part.target, groups=part.groups)


def scores_of(Y, probabilities):
    """Return the scores that the table shows, in percent."""
    if np.ndim(Y) == 2:
        report = multilabel_report(Y, probabilities)
    else:
        labels = np.arange(probabilities.shape[1])
        report = {
            f"top-{k}": top_k_accuracy_score(Y, probabilities, k=k, labels=labels)
            for k in (1, 5)
        }
    return {name: 100 * float(value) for name, value in report.items()}


def run(protocol, options):
    """Run a protocol from the cells to the table; returns what the JSON file holds.

    Rows that the store knows are not computed again: an interrupted run goes on when
    the same command is given once more.
    """
    if options.rows is not None:
        protocol.train = some_rows(protocol.train, options.rows)
        protocol.test = some_rows(protocol.test, options.rows)
    train, test = protocol.train, protocol.test
    say(f"{protocol.name}: {len(train.data):,} training rows, {len(test.data):,} test")
    if options.estimate:
        return estimate(protocol, options)
    options.out.mkdir(parents=True, exist_ok=True)
    cache = options.cache or options.out / "features.db"
    transformers = transformers_of(protocol, options, cache)
    seconds = {}
    part = some_rows(train, options.search_rows)
    say(f"passes of {len(part.data):,} training rows at every timestep")
    with timing(seconds, "passes"):
        for kind, transformer in transformers.items():
            transformer.precompute(
                part.data[kind], timesteps=timesteps_of(kind, options)
            )
    say("local search on these rows")
    with timing(seconds, "search"), expected_warnings():
        search = search_places(part, transformers, options)
    best = {}
    for name, value in search.best_params_.items():
        _, kind, leaf = name.split("__")
        best.setdefault(kind, {})[leaf] = int(value)
    say(f"chosen: {best}")
    with timing(seconds, "passes"):
        for kind, transformer in transformers.items():
            transformer.set_params(**best[kind])
            for cells in (train.data[kind], test.data[kind]):
                transformer.precompute(cells, blocks=best[kind]["block"])
    say("final fits")
    with timing(seconds, "fits"), expected_warnings():
        results = fit_and_score(protocol, transformers)
    record = {
        "protocol": protocol.name,
        "options": {name: str(value) for name, value in vars(options).items()},
        "n_train": len(train.data),
        "n_test": len(test.data),
        "chosen": best,
        "scores": results,
        "published": [list(row) for row in protocol.published],
        "seconds": seconds,
    }
    (options.out / "results.json").write_text(json.dumps(record, indent=1))
    draw_maps(search, protocol.modalities, options.out / "map.png")
    print_table(protocol, results)
    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    say(f"{took}; results and map in {options.out}")
    return record


def fit_and_score(protocol, transformers):
    """Fit each modality alone and all together; return the scores of the test part."""
    train, test = protocol.train, protocol.test
    features = make_fusion_pipeline(
        *((kind, transformer, kind) for kind, transformer in transformers.items())
    )["features"]
    Z_train = features.fit_transform(train.data)
    Z_test = features.transform(test.data)
    spans = Z_train.modalities
    Z_train, Z_test = np.asarray(Z_train), np.asarray(Z_test)
    settings = [[kind] for kind in spans]
    settings += [list(spans)] if len(spans) > 1 else []
    results = {}
    for kinds in settings:
        columns = np.concatenate([np.arange(Z_train.shape[1])[spans[k]] for k in kinds])
        widths = {k: spans[k].stop - spans[k].start for k in kinds}
        head = choose_head(Z_train[:, columns], train.target, train.groups, widths)
        found = head.predict_proba(Z_test[:, columns])
        name = " + ".join(kinds)
        results[name] = scores_of(test.target, found)
        say(f"{name}: C {head.C}, weights {head.modality_weights}")
    return results


def draw_maps(search, kinds, path):
    """Draw the scores of the walk over block and timestep, one map a modality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(kinds), 5), dpi=120, layout="constrained")
    for axes, kind in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True
    ):
        BlockTimestepDisplay.from_search(search, modality=kind, ax=axes)
    figure.savefig(path)


def print_table(protocol, results):
    """Print our scores beside the published ones, in percent."""
    names = (
        ["mAP", "CP", "CR", "CF1", "OP", "OR", "OF1", "CF1_top3", "OF1_top3"]
        if protocol.is_multilabel
        else ["top-1", "top-5"]
    )
    rows = [["method", "inputs", *names, "source"]]
    for inputs, scores in results.items():
        figures = [f"{scores[name]:.1f}" for name in names]
        rows.append(["ours", inputs, *figures, "this run"])
    blank = [""] * (len(names) - 1)
    for method, inputs, score, source in protocol.published:
        rows.append([method, inputs, f"{score:.1f}", *blank, source])
    print_markdown(protocol.name, rows)
    print("Rows of other inputs, rows or encoders are not comparable.\n", flush=True)


def print_markdown(title, rows):
    """Print rows of text, the first of them the header, in Markdown."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    print("\n".join(["", title, "", lines[0], rule, *lines[1:], ""]), flush=True)
