"""What an array's dtype, or an image's mode, says of its range."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.inputs._decoding import decode_image, decode_seen

SIZE = 16
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def grey(value, dtype):
    return np.full((SIZE, SIZE), value, dtype=dtype)


def encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(DTYPES),
    hnp.arrays(np.uint8, st.sampled_from([(5, 7), (5, 7, 3), (5, 7, 4)])),
)
def test_the_order_of_an_arrays_bytes_changes_nothing(kind, values):
    array = values / 255 if kind[0] == "f" else np.minimum(values, 127)
    little, big = array.astype("<" + kind), array.astype(">" + kind)
    np.testing.assert_array_equal(
        decode_image(little, "it", SIZE), decode_image(big, "it", SIZE)
    )


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (bool, True, 255),
        ("u1", 200, 200),
        ("u2", 65535, 255),
        (">u2", 32896, 128),
        ("i2", 200, 200),
        ("i4", 200, 200),
        (">i8", 255, 255),
        ("f2", 1.0, 255),
        (">f8", 0.5, 128),
    ],
)
def test_each_dtype_has_one_range(dtype, value, expected):
    assert (decode_image(grey(value, dtype), "it", SIZE) == expected).all()


def test_16_bit_images_of_either_byte_order_are_scaled_as_arrays_are():
    ramp = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    expected = decode_image(ramp, "it", SIZE)
    big = Image.frombytes("I;16B", (SIZE, SIZE), ramp.astype(">u2").tobytes())
    image = Image.fromarray(ramp)
    cells = [big, encoded(image, "PNG"), encoded(image, "TIFF"), encoded(image, "PPM")]
    for cell in [*cells, Image.open(io.BytesIO(cells[-1]))]:
        np.testing.assert_allclose(decode_image(cell, "it", SIZE), expected, atol=1)


@pytest.mark.parametrize("value", [0, 1, 200, 252, 255])
def test_mode_i_runs_to_255_whatever_its_largest_value(value):
    image = Image.new("I", (SIZE, SIZE), value)
    assert (decode_image(image, "it", SIZE) == value).all()


@pytest.mark.parametrize("value", [-1, 256, 70000])
def test_a_value_outside_the_range_of_mode_i_is_refused(value):
    image = Image.new("I", (SIZE, SIZE), value)
    with pytest.raises(ValueError, match=rf"int32 .* {value} to {value}"):
        decode_image(image, "it", SIZE)
    with pytest.raises(ValueError, match=r"dtype int32.*uint16"):
        decode_image(np.asarray(image), "it", SIZE)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["u1", "u2", ">u2", "i8", "f4", "L", "I;16", "PNG"]),
    st.floats(0, 1),
    st.integers(1, 30),
)
def test_a_picture_is_called_black_when_it_is_and_only_then(kind, share, n_lit):
    top = {"u1": 255, "L": 255, "PNG": 255, "i8": 255, "f4": 1}.get(kind, 65535)
    value = share if kind == "f4" else round(share * top)
    dtype = {"L": "u1", "PNG": "u1", "I;16": "u2"}.get(kind, kind)
    array = np.zeros((40, 40), dtype)
    array.flat[:n_lit] = value
    cell = array
    if kind in ("L", "I;16"):
        cell = Image.fromarray(array)
    elif kind == "PNG":
        cell = encoded(Image.fromarray(array), "PNG")
    _, black = decode_seen(cell, "it", SIZE)
    brightest = round(float(array.max()) / top * 255)
    bound = 1 if dtype == "u1" else 16
    assert black == (0 < brightest <= bound)


def test_pictures_that_their_range_makes_black_are_counted_when_computed_and_when_read(
    cache,
):
    mask = np.eye(32, dtype=np.uint8)
    cells = [
        mask,
        np.full((32, 32), 200, np.uint16),
        np.full((32, 32), 200, np.uint8),
        np.zeros((32, 32), np.uint8),
        np.full((32, 32, 3), 4095, np.uint16),
        encoded(Image.fromarray(mask), "PNG"),
        mask,
    ]
    transformer = ImageDiffusionFeatureTransformer(cache=cache).fit(cells)
    for _ in range(2):
        with pytest.warns(UserWarning, match="5 of 7 pictures come out black") as seen:
            transformer.transform(cells)
        assert len(seen) == 1
    with pytest.warns(UserWarning, match="1 of 2 pictures come out black"):
        ImageDiffusionFeatureTransformer(n_jobs=2).fit_transform([cells[0], cells[2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transformer.transform([np.uint8(255) * mask, cells[2], cells[3]])


def test_black_pictures_are_counted_where_only_their_latents_were_kept(
    dit_folder, cache
):
    cells = [np.eye(32, dtype=np.uint8)]
    for timestep in (10, 20):
        transformer = ImageDiffusionFeatureTransformer(
            dit_folder, timestep=timestep, cache=cache
        )
        with pytest.warns(UserWarning, match="1 of 1 pictures come out black"):
            transformer.fit_transform(cells)
