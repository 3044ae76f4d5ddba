"""Reading ahead of the model: each cell once, and no further than need be."""

import builtins
import io

import numpy as np
import pytest
from helpers.both import BOTH
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.extraction import _model
from sklearn_difffeat.inputs import _image_reader
from sklearn_difffeat.inputs._decoding import decode_image, digest_image


def random_picture(seed, size=(20, 30)):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def paths(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(120)]
    for seed, path in enumerate(paths):
        random_picture(seed).save(path)
    return paths


@pytest.fixture
def opened(monkeypatch):
    """The pictures opened so far, in their order."""
    names = []
    real = builtins.open

    def counted(file, *args, **options):
        if str(file).endswith(".png"):
            names.append(str(file))
        return real(file, *args, **options)

    monkeypatch.setattr(builtins, "open", counted)
    return names


@pytest.mark.parametrize("where", ["none", "memory", "file"])
def test_a_path_is_opened_once_a_row(where, paths, opened, cache):
    cache = None if where == "none" else cache
    transformer = ImageDiffusionFeatureTransformer(cache=cache, timestep=[0, 50])
    transformer.fit(paths)
    for _ in range(2):
        opened.clear()
        transformer.transform(paths)
        assert sorted(opened) == sorted(paths)


def test_a_path_is_opened_once_when_a_window_holds_many_bytes(
    paths, opened, monkeypatch
):
    expected = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(paths)
    opened.clear()
    monkeypatch.setattr(_image_reader, "HELD_BYTES", 3000)
    found = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(paths)
    assert len(opened) == len(paths)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("where", ["none", "file"])
def test_the_first_pass_does_not_wait_for_the_last_path(
    where, paths, opened, cache, monkeypatch
):
    forward, n_opened = _model.forward, []

    def counted(*args):
        n_opened.append(len(opened))
        return forward(*args)

    monkeypatch.setattr(_model, "forward", counted)
    cache = None if where == "none" else cache
    ImageDiffusionFeatureTransformer(batch_size=4, cache=cache).fit_transform(paths)
    # What is read ahead is bounded by batches and threads, not by rows.
    assert n_opened[0] <= 4 * 14 < len(paths)


@BOTH
def test_a_warm_store_loads_no_model_and_prepares_nothing(
    kind, column, cells, cache, pass_counter, monkeypatch
):
    X = list(cells(column, 12))
    expected = kind(cache=cache).fit_transform(X)
    loads = pass_counter["loads"]

    def refuse(*args):
        raise AssertionError("inputs were prepared")

    monkeypatch.setattr(_model.Model, "prepare", refuse)
    from sklearn_difffeat import release_backbones

    release_backbones()
    for n_jobs in (None, 2):
        found = kind(cache=cache, n_jobs=n_jobs).fit_transform(X)
        np.testing.assert_array_equal(found, expected)
    assert pass_counter["loads"] == loads


def test_pil_pictures_are_not_resized_to_be_looked_up(cache, monkeypatch):
    X = [random_picture(seed) for seed in range(6)]
    expected = ImageDiffusionFeatureTransformer(cache=cache).fit_transform(X)

    def refuse(*args, **options):
        raise AssertionError("a picture was resized")

    monkeypatch.setattr(Image.Image, "resize", refuse)
    found = ImageDiffusionFeatureTransformer(cache=cache).fit_transform(X)
    np.testing.assert_array_equal(found, expected)


def variants():
    """Pairs of PIL pictures that differ in what one can see."""
    base = random_picture(0).quantize(8)
    other = base.copy()
    palette = base.getpalette()
    palette[:3] = [255, 0, 255]
    other.putpalette(palette)
    yield "palette", base, other
    clear = base.copy()
    clear.info["transparency"] = base.getpixel((0, 0))
    yield "transparency", base, clear
    upright, turned = random_picture(1), random_picture(1)
    turned.getexif()[0x0112] = 6
    turned.info["exif"] = turned.getexif().tobytes()
    yield "orientation", upright, turned
    yield "mode", Image.new("L", (4, 6), 9), Image.new("RGB", (4, 6), (9, 9, 8))
    yield "pixel", random_picture(1), random_picture(2)
    yield "size", Image.new("RGB", (4, 6), "red"), Image.new("RGB", (6, 4), "blue")
    small = Image.new("I", (4, 4), 7)
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 7, np.uint16)).save(buffer, "PPM")
    yield "range", small, Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("pair", list(variants()), ids=lambda pair: pair[0])
def test_the_digest_of_a_pil_picture_tells_whatever_can_be_seen(pair):
    _, one, other = pair
    assert (decode_image(one, "it", 16) != decode_image(other, "it", 16)).any()
    assert digest_image(one) != digest_image(other)
    assert digest_image(one) == digest_image(one.copy()) or one.format == "PPM"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"]), st.data())
def test_pil_pictures_of_one_digest_decode_to_one_picture(mode, data):
    seeds = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    one, other = (random_picture(seed, (6, 7)).convert(mode) for seed in seeds)
    same = digest_image(one) == digest_image(other)
    equal = (decode_image(one, "it", 8) == decode_image(other, "it", 8)).all()
    assert equal or not same
    assert same == (seeds[0] == seeds[1]) or mode == "1"


def test_the_digest_of_an_animation_is_of_its_first_frame():
    frames = [random_picture(seed) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    image = Image.open(io.BytesIO(buffer.getvalue()))
    first = digest_image(image)
    image.seek(1)
    assert digest_image(image) == first
    assert image.tell() == 1


def test_one_lazy_pil_picture_in_many_rows_is_read_whole():
    buffer = io.BytesIO()
    random_picture(3, (200, 200)).save(buffer, "PNG", pnginfo=PngImagePlugin.PngInfo())
    image = Image.open(io.BytesIO(buffer.getvalue()))
    expected = ImageDiffusionFeatureTransformer().fit_transform([buffer.getvalue()])
    image_twice = ImageDiffusionFeatureTransformer(batch_size=1)
    found = image_twice.fit_transform([image] * 40)
    np.testing.assert_allclose(found, np.repeat(expected, 40, 0), rtol=1e-2, atol=1e-2)
