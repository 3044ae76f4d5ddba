"""Image cells of every kind and mode."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.inputs._decoding import decode_image, read_image

SIZE = 64


@pytest.fixture(scope="module")
def picture(clipart):
    return Image.open(io.BytesIO(clipart[0]["image"][20])).convert("RGB")


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(cell):
    return decode_image(*read_image(cell), SIZE)


def test_path_bytes_image_array_and_dict_give_the_same_pixels(picture, tmp_path):
    path = tmp_path / "picture.png"
    picture.save(path)
    content = path.read_bytes()
    expected = decode_image(picture, "it", SIZE)
    assert expected.shape == (SIZE, SIZE, 3)
    assert expected.dtype == np.uint8
    cells = [
        str(path),
        path,
        content,
        bytearray(content),
        np.asarray(picture),
        np.asarray(picture) / np.float32(255),
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
    ]
    for cell in cells:
        np.testing.assert_array_equal(decoded(cell), expected)


def test_an_nhwc_array_is_a_column_of_pictures(clipart):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    transformer = ImageDiffusionFeatureTransformer()
    np.testing.assert_array_equal(
        transformer.fit_transform(pictures), transformer.fit_transform(list(pictures))
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB"])
def test_opaque_modes_keep_the_picture(picture, mode):
    grey = mode in ("1", "L")
    expected = decode_image(picture.convert("L") if grey else picture, "it", SIZE)
    found = decode_image(picture.convert(mode), "it", SIZE)
    difference = np.abs(found.astype(int) - expected).mean()
    assert difference < (90 if mode == "1" else 16)


def test_sixteen_bit_greys_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    image = Image.fromarray(ramp)
    assert image.mode == "I;16"
    for cell in (image, encoded(image), encoded(image, "TIFF"), ramp):
        found = decoded(cell)
        np.testing.assert_allclose(found[..., 0], ramp / 257, atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB"])
def test_transparency_is_put_on_white(mode):
    image = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, SIZE, SIZE // 2))
    if mode == "P":
        image = Image.new("P", (SIZE, SIZE), 0)
        image.putpalette([10, 20, 30, 200, 0, 0])
        image.paste(1, (0, 0, SIZE, SIZE // 2))
        cell = encoded(image, transparency=0)
    elif mode == "RGB":
        image = Image.new("RGB", (SIZE, SIZE), (10, 20, 30))
        image.paste((200, 0, 0), (0, 0, SIZE, SIZE // 2))
        cell = encoded(image, transparency=(10, 20, 30))
    else:
        cell = image.convert(mode)
    found = decoded(cell)
    assert (found[-1] == 255).all()
    assert (found[0] < 255).any()


def test_exif_orientation_is_applied(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    cell = encoded(picture, "JPEG", exif=exif, quality=95)
    plain = encoded(picture, "JPEG", quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(cell)))
    expected = decode_image(upright.convert("RGB"), "it", SIZE)
    np.testing.assert_array_equal(decoded(cell), expected)
    assert (decode_image(plain, "it", SIZE) != expected).any()


def test_the_first_frame_of_an_animation_is_taken(picture):
    other = Image.new("RGB", picture.size, "green")
    cell = encoded(picture, "GIF", save_all=True, append_images=[other])
    image = Image.open(io.BytesIO(cell))
    image.seek(1)
    expected = decode_image(encoded(picture, "GIF"), "it", SIZE)
    np.testing.assert_allclose(decoded(cell), expected, atol=8)
    np.testing.assert_allclose(decode_image(image, "it", SIZE), expected, atol=8)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.bool_]),
        st.one_of(
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
            st.tuples(
                st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)
            ),
        ),
    )
)  # fmt: skip
def test_any_picture_array_becomes_a_square_of_rgb(array):
    found = decode_image(array, "it", SIZE)
    assert found.shape == (SIZE, SIZE, 3)
    assert found.dtype == np.uint8


def test_missing_file_is_named_with_its_row(clipart):
    cells = [*clipart[0]["image"][:2], "no/such/picture.png"]
    with pytest.raises(
        FileNotFoundError, match=r"row 2 of X: there is no file 'no/such"
    ):
        ImageDiffusionFeatureTransformer().fit_transform(cells)


def test_text_in_the_image_column_is_named_with_its_row(clipart):
    with pytest.raises(FileNotFoundError, match=r"row 1 of X: there is no file 'a red"):
        ImageDiffusionFeatureTransformer().fit_transform(
            [clipart[0]["image"][0], "a red bird"]
        )


def test_truncated_jpeg_is_named_with_its_row(picture, tmp_path):
    content = encoded(picture, "JPEG")
    path = tmp_path / "half.jpg"
    path.write_bytes(content[: len(content) // 2])
    for cell, name in ((str(path), "half.jpg"), (path.read_bytes(), "bytes")):
        with pytest.raises(
            ValueError, match=f"row 1 of X: .*{name}.* cannot be decode"
        ):
            ImageDiffusionFeatureTransformer().fit_transform([content, cell])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_anywhere_is_an_error_that_names_it_or_decodes(picture, kind):
    content = encoded(picture, kind)
    n_errors = 0
    for length in range(1, len(content), max(1, len(content) // 60)):
        try:
            decode_image(content[:length], "it", SIZE)
        except ValueError as error:
            assert str(error).startswith("it ")
            n_errors += 1
    assert n_errors > 5


def test_too_large_a_picture_is_an_error_that_names_its_row(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    content = encoded(picture)
    with pytest.raises(ValueError, match=r"row 1 of X: .* is too large"):
        ImageDiffusionFeatureTransformer().fit_transform(
            [picture.crop((0, 0, 9, 9)), content]
        )


def test_the_callers_image_stays_at_its_frame(picture):
    other = Image.new("RGB", picture.size, "green")
    image = Image.open(
        io.BytesIO(encoded(picture, "GIF", save_all=True, append_images=[other]))
    )
    image.seek(1)
    decode_image(image, "it", SIZE)
    assert image.tell() == 1


def test_32_bit_and_float_images_keep_their_brightness(picture):
    grey = Image.new("L", (SIZE, SIZE), 200)
    assert (decode_image(grey.convert("I"), "it", SIZE) == 200).all()
    half = Image.fromarray(np.full((SIZE, SIZE), 0.5, dtype=np.float32))
    assert (decode_image(half, "it", SIZE) == 128).all()


def test_file_that_is_no_image_is_named_with_its_row(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    with pytest.raises(ValueError, match=r"row 0 of X: .*notes.txt.* is not an image"):
        ImageDiffusionFeatureTransformer().fit_transform([path])
    with pytest.raises(ValueError, match=r"row 0 of X: 0 bytes is not an image"):
        ImageDiffusionFeatureTransformer().fit_transform([b""])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Image.new("RGB", (0, 5)), "its size is"),
        ({"bytes": None, "path": "no/such"}, "no file"),
        (np.zeros((3, 64, 64), np.uint8), "not a picture"),
        (np.zeros((0, 64, 3), np.uint8), "not a picture"),
        (np.full((8, 8, 3), 300), "dtype int64"),
        (np.full((8, 8, 3), -1.0), "values from 0 to 1"),
        (np.full((8, 8, 3), np.nan), "holds NaN"),
        (np.zeros((8, 8), complex), "dtype complex128"),
    ],
)
def test_array_that_is_no_picture_is_named_with_its_row(cell, message):
    with pytest.raises((ValueError, OSError), match=f"row 0 of X: .*{message}"):
        ImageDiffusionFeatureTransformer().fit_transform([cell])


@pytest.mark.parametrize("cell", [3, object(), {"text": "no"}, {1, 2}, {"bytes": None}])
def test_cell_of_another_kind_is_refused_by_fit_already(cell, picture):
    with pytest.raises(TypeError, match="row 1 of X"):
        ImageDiffusionFeatureTransformer().fit([picture, cell])


def test_image_size_must_fit_the_patches(picture):
    with pytest.raises(ValueError, match="image_size=50 is not a multiple of 32"):
        ImageDiffusionFeatureTransformer(image_size=50).fit([picture])
    transformer = ImageDiffusionFeatureTransformer(image_size=64).fit([picture])
    assert transformer.transform([picture]).shape == (1, transformer.n_features_out_)


def test_grid_pooling_keeps_the_cells_of_the_picture(picture):
    def features(pooling):
        transformer = ImageDiffusionFeatureTransformer(
            block=2, pooling=pooling, norm=None, image_size=128
        )
        return transformer.fit_transform([picture])

    mean = features("mean")
    np.testing.assert_allclose(features(("grid", 1)), mean, rtol=1e-4, atol=1e-5)
    grid = features(("grid", 2))
    assert grid.shape == (1, 4 * mean.shape[1])
    np.testing.assert_allclose(
        grid.reshape(4, -1).mean(0), mean[0], rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ValueError, match="choose at most 4"):
        features(("grid", 5))


def test_noise_free_features_see_the_clean_picture(picture):
    from sklearn_difffeat.backbones import _base

    def no_noise(*args):
        raise AssertionError("noise was drawn at timestep 0")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_base, "gaussian_noise", no_noise)
        ImageDiffusionFeatureTransformer(timestep=0).fit_transform([picture])
        with pytest.raises(AssertionError):
            ImageDiffusionFeatureTransformer(timestep=1).fit_transform([picture])
