"""Two modalities of which one is weak, in five ways."""

import numpy as np

TASKS = ("noise", "both", "constant", "missing", "few")
SPANS = {"image": 40, "text": 20}


def make_task(name, seed, n_train=240, n_test=1500, n_labels=8):
    """Training and test part (X, Y) of a task in which the text tells the labels.

    "noise": the image tells nothing; "both": it tells as much as the text; "constant":
    it is the same in every row; "missing": it tells something, but half of the rows
    lack it; "few": it tells a little, and there are few rows.
    """
    random = np.random.default_rng([seed, TASKS.index(name)])
    n_train = 70 if name == "few" else n_train
    n = n_train + n_test
    hidden = random.normal(size=(n, 10))
    decay = np.arange(1, 21) ** -0.7
    text = hidden @ random.normal(size=(10, 20)) + 1.5 * random.normal(size=(n, 20))
    clarity = {"noise": 0.0, "both": 1.0, "constant": 0.0, "missing": 0.7, "few": 0.3}
    image = clarity[name] * hidden @ random.normal(size=(10, 40))
    image += 2 * random.normal(size=(n, 40))
    if name == "constant":
        image[:] = 3.0
    if name == "missing":
        image[random.random(n) < 0.5] = np.nan
    logits = 2 * hidden @ random.normal(size=(10, n_labels)) / np.sqrt(10)
    logits += random.logistic(size=logits.shape)
    cuts = np.quantile(logits, 1 - np.geomspace(0.08, 0.4, n_labels), axis=0).diagonal()
    X, Y = np.hstack([image, text * decay]), (logits > cuts).astype(int)
    return (X[:n_train], Y[:n_train]), (X[n_train:], Y[n_train:])
