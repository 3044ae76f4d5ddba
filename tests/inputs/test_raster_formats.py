"""Pictures are data: nothing that is a program is opened."""

import io

import numpy as np
import pytest
from helpers.plain_format import plain_format  # noqa: F401
from PIL import EpsImagePlugin, Image

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.inputs._pillow import RASTER_FORMATS, allowed_formats

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
newpath 0 0 moveto 10 10 lineto stroke
showpage
%%EOF
"""


@pytest.fixture
def no_ghostscript(monkeypatch):
    def run(*args, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    monkeypatch.setattr("subprocess.check_call", run)
    monkeypatch.setattr("subprocess.Popen", run)


@pytest.mark.parametrize("how", ["bytes", "path", "dict", "PIL"])
def test_postscript_is_refused_by_name_and_never_run(how, no_ghostscript, tmp_path):
    path = tmp_path / "drawing.eps"
    path.write_bytes(EPS)
    cell = {
        "bytes": EPS,
        "path": path,
        "dict": {"bytes": EPS, "path": "drawing.png"},
        "PIL": Image.open(io.BytesIO(EPS)),
    }[how]
    with pytest.raises(ValueError, match=r"row 0 of X: .*(EPS|PostScript)"):
        ImageDiffusionFeatureTransformer().fit_transform([cell])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n1 0 obj", "PostScript or PDF"),
        (b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, "PostScript or PDF"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\n<svg width='1'></svg>", "SVG"),
        (b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60), "is not an image"),
        (b"GRIB" + bytes(12) + b"7777", "is not an image"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "is not an image"),
        (b"BUFR" + bytes(60), "is not an image"),
    ],
)
def test_what_is_not_made_of_pixels_is_refused(content, words, no_ghostscript):
    with pytest.raises(ValueError, match=f"row 0 of X: .*{words}"):
        ImageDiffusionFeatureTransformer().fit_transform([content])


def test_every_format_that_is_allowed_is_one_of_pillows_or_the_users():
    assert set(allowed_formats()) <= {*RASTER_FORMATS}
    Image.init()
    refused = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
    assert refused <= set(Image.OPEN) - set(allowed_formats())


def test_formats_that_the_user_registered_are_read(plain_format):  # noqa: F811
    grey = np.full((4, 4), 7, np.uint8)
    found = ImageDiffusionFeatureTransformer().fit_transform([plain_format, grey])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_common_raster_formats_are_read(clipart):
    picture = Image.open(io.BytesIO(clipart[0]["image"][20])).convert("RGB")
    cells = []
    for kind in ("PNG", "TIFF", "BMP", "PPM", "TGA", "PCX", "SGI", "ICO", "QOI"):
        buffer = io.BytesIO()
        picture.resize((64, 64)).save(buffer, kind)
        cells.append(buffer.getvalue())
    found = ImageDiffusionFeatureTransformer(dtype="float32").fit_transform(cells)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-3, atol=1e-4)
