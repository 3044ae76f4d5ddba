"""The recipe of the DiT over feature maps, on a handful of made-up drawings."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pretraining_runs import SMALL_DIT, run, small_encoder
from PIL import Image

from sklearn_difffeat.datasets import build_openclipart as build
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining import (
    drawings,
    image,
    latent_samples,
    latents,
    recipes,
)
from sklearn_difffeat.pretraining.__main__ import main, parser
from sklearn_difffeat.pretraining.loop import Schedule

SMALL = SMALL_DIT | {"sample_size": 8}


def made_up_embeddings(texts, **options):
    return np.random.default_rng(0).normal(size=(len(texts), 6))


@pytest.fixture(scope="module")
def encoder():
    return small_encoder()


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(latents, "SIZE", 32)
    monkeypatch.setattr(latent_samples, "N_STEPS", 4)


@pytest.fixture
def pictures(tmp_path):
    """Two artists' drawings of two things, three photographs and an item."""
    random = np.random.default_rng(0)
    table = []
    for folder, names in (("one", ["big_cat", "dog"]), ("two", ["big_cat", "dog"])):
        (tmp_path / folder / "64").mkdir(parents=True)
        table = [{"short_name": n, "image": f"{n}.png", "unified": f"1F40{i}",
                  "non_qualified": None} for i, n in enumerate(names)]  # fmt: skip
        (tmp_path / folder / "emoji.json").write_text(json.dumps(table))
        for name in names:
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / "64" / f"{name}.png")
    (tmp_path / "codes").mkdir()
    item = Image.open(tmp_path / "one/64/dog.png")
    item.save(tmp_path / "codes" / "1f401.webp", lossless=True)
    item.save(tmp_path / "codes" / "1f409.webp", lossless=True)
    photos = tmp_path / "photos" / "truck"
    photos.mkdir(parents=True)
    for number in range(3):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg")
    folders = [tmp_path / name for name in ("one", "two", "codes")]
    return drawings.list_pictures(folders, [], tmp_path / "photos", 2)


def test_artists_share_names_and_photographs_have_none(pictures):
    found = sorted((one.source, one.name) for one in pictures)
    assert found == [
        ("codes", "dog"),
        ("one", "big cat"), ("one", "dog"),
        ("photographs", ""), ("photographs", ""),
        ("two", "big cat"), ("two", "dog"),
    ]  # fmt: skip


def test_icons_are_drawn_in_the_boxes_of_their_own_or_of_the_collection(tmp_path):
    pytest.importorskip("cairosvg")
    square = "<path fill='{}' d='M0 0h8v8H0z'/>"
    collection = {
        "width": 8,
        "height": 8,
        "icons": {
            "ink-24": {"body": square.format("currentColor")},
            "left_half": {"body": square.format("#f00"), "width": 16},
            "moved": {"body": square.format("#00f"), "left": 4, "top": 4},
            # Nearly the same drawing once more.
            "ink-outline": {"body": square.format("currentColor")},
        },
    }
    plain = {"icons": {"red-square": {"body": square.format("red")}}}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, content in zip(folders, (collection, plain), strict=True):
        folder.mkdir()
        (folder / "icons.json").write_text(json.dumps(content))
    (tmp_path / "photos").mkdir()
    found = {
        icon.name: icon.draw(32)[0]
        for icon in drawings.list_pictures([], folders, tmp_path / "photos", 0)
    }
    assert sorted(found) == ["ink", "left half", "moved", "red square"]
    assert (found["ink"][16, 16] == 0).all()
    half, moved, square = (found[k] for k in ("left half", "moved", "red square"))
    assert half[16, 4].tolist() == [255, 0, 0] and (half[16, 28] == 255).all()
    assert moved[8, 8].tolist() == [0, 0, 255] and (moved[24, 24] == 255).all()
    assert square[4, 4].tolist() == [255, 0, 0] and (square[28, 28] == 255).all()


def test_no_item_of_openclipart_is_used(pictures, encoder, tmp_path, monkeypatch):
    item = next(one for one in pictures if one.source == "two")
    monkeypatch.setattr(
        latents, "banned_digests", lambda: {latents.pixel_digest(item.draw(96)[0])}
    )
    folder = tmp_path / "corpus"
    encode = latents.encode_with(encoder)
    latents.write_latents(pictures, folder, encode, (20, 8, 8))
    maps, names, rows = latents.read_latents(folder)
    used = [pictures[row] for row in rows]
    assert item not in used
    # One drawing that two packages hold counts once.
    assert len(used) == len(pictures) - 2
    assert len(maps) == len(names) == len(pictures)


def test_digests_are_the_items_own(pictures):
    assert drawings.banned_digests() == set(load_openclipart().sha256)
    # They are of pixels as the data set's builder renders them.
    file = next(one.content for one in pictures if one.source == "one")
    _, small = drawings.Picture("one", "cat", file).draw(latents.SIZE, build.SIZE)
    assert latents.ITEM_SIZE == build.SIZE
    np.testing.assert_array_equal(small, build.render(file))


def test_latents_go_on_where_they_were_cut_off(pictures, encoder, tmp_path):
    encode = latents.encode_with(encoder)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    latents.write_latents(pictures, whole, encode, (20, 8, 8))

    def cut(pixels):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return encode(pixels)

    calls, batch = [], latents.BATCH
    latents.BATCH = 4
    try:
        with pytest.raises(KeyboardInterrupt):
            latents.write_latents(pictures, parts, cut, (20, 8, 8))
        assert len(latents.read_latents(parts)[0]) == 4
        latents.write_latents(pictures, parts, encode, (20, 8, 8))
    finally:
        latents.BATCH = batch
    np.testing.assert_allclose(
        latents.read_latents(parts)[0], latents.read_latents(whole)[0], atol=1e-3
    )


def test_noise_is_that_of_the_shifted_flow():
    scheduler = image.build_scheduler(4 * image.BASE_DIMENSION)
    alpha_bar = scheduler.alphas_cumprod[499].double()
    sigma = 2 * 0.5 / (1 + 0.5)
    ratio = (alpha_bar / (1 - alpha_bar)).sqrt()
    assert float(ratio) == pytest.approx((1 - sigma) / sigma, rel=1e-3)
    assert scheduler.alphas_cumprod[-1] < 1e-4


def test_a_run_is_resumed_and_exported_in_the_hub_layout(
    pictures, encoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(latents, "embed_texts", made_up_embeddings)
    corpus = tmp_path / "corpus"
    latents.write_latents(pictures, corpus, latents.encode_with(encoder), (20, 8, 8))
    latents.write_targets(corpus, encoder)
    plan = {"batch_size": 4, "learning_rate": 1e-3, "warmup": 1, "checkpoint_every": 2}
    for steps in (2, 4):
        folder = image.pretrain_image(
            corpus, tmp_path / "run", Schedule(steps=steps, **plan), encoder,
            block=1, n_held=2, **SMALL,
        )  # fmt: skip
    starts = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["first_step"] for line in starts] == [0, 2]
    model = image.DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    assert model.config.in_channels == 20
    vae = latents.EfficientNetLiteEncoder.from_pretrained(folder, subfolder="vae")
    maps, _, rows = latents.read_latents(corpus)
    scale = torch.from_numpy(maps[rows[2:]]).float().std((0, 2, 3))
    torch.testing.assert_close(
        vae.latents_std.float().flatten(), scale, atol=1e-3, rtol=1e-3
    )
    assert (folder / "scheduler" / "scheduler_config.json").exists()
    assert "| Noto Emoji" not in (folder / "README.md").read_text()
    seen = np.load(folder / "digests.npy")
    assert len(seen) == len(rows) - 2
    found = latent_samples.judge_samples(folder, corpus, tmp_path / "page.png", n=2)
    assert sorted(found) == ["corpus", "gaussian", "generated", "noise"]
    with Image.open(tmp_path / "page.png") as page:
        assert page.width % latents.THUMBNAIL == 0


def test_the_command_encodes_trains_and_judges_and_goes_on(
    pictures, tmp_path, monkeypatch, capsys
):
    small = partial(latents.write_latents, shape=(20, 8, 8))
    monkeypatch.setattr(recipes, "build_encoder", small_encoder)
    monkeypatch.setattr(recipes, "write_latents", small)
    monkeypatch.setattr(image, "CONFIG", image.CONFIG | SMALL | {"num_layers": 3})
    monkeypatch.setattr(latents, "embed_texts", made_up_embeddings)
    emoji = [str(tmp_path / name) for name in ("one", "two", "codes")]
    for steps in ("10", "20"):
        main(
            ["image", "--out", str(tmp_path / "run"), "--emoji", *emoji, "--photos",
             str(tmp_path / "photos"), "--n-held", "2", "--batch-size", "4",
             "--steps", steps]
        )  # fmt: skip
        printed = capsys.readouterr().out
        assert f"wrote {tmp_path / 'run' / 'export'}" in printed
        assert "Fréchet distance to held-out latents: generated" in printed
    card = (tmp_path / "run" / "export" / "README.md").read_text("utf-8")
    assert "at step 10." in card and "34,496" in card
    with Image.open(tmp_path / "run" / "nearest.png") as page:
        assert page.height == 2 * latents.THUMBNAIL


def test_latents_of_another_run_are_refused(corpus, tmp_path):
    folder = run("image", corpus, tmp_path / "run", 10)
    np.save(folder / "digests.npy", np.array([7], dtype=np.uint64))
    with pytest.raises(ValueError, match=r"was trained on 1; .* of its own run"):
        latent_samples.judge_samples(folder, corpus, tmp_path / "page.png")


def test_a_gaussian_has_the_latents_mean_and_covariance():
    known = torch.randn(40, 3, 2, 2) @ torch.tensor([[1.0, 0.5], [0.0, 2.0]]) + 3
    drawn = latent_samples.gaussian_latents(known, 20_000).flatten(1).numpy()
    expected = known.flatten(1).numpy()
    np.testing.assert_allclose(drawn.mean(0), expected.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(expected.T), atol=0.25)


def test_the_frechet_distance_is_that_of_two_gaussians():
    random = np.random.default_rng(0)
    first = random.normal(size=(50_000, 2)) * [1, 2]
    second = random.normal(size=(50_000, 2)) * [3, 2] + [1, 0]
    # Squared: means differ by 1, deviations by 2 on one axis.
    found = latent_samples.frechet_distance(first, second)
    assert found == pytest.approx(1 + 4, abs=0.1)


def test_the_command_takes_folders_of_packages(tmp_path):
    options = parser().parse_args(
        ["image", "--out", "run", "--emoji", "google", "twitter", "--photos", "cifar",
         "--minutes", "25"]
    )  # fmt: skip
    assert options.emoji == [Path("google"), Path("twitter")]
    assert (options.n_held, options.minutes) == (256, 25)
