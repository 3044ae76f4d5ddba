"""A picture format of a user's own, registered with Pillow."""

import pytest
from PIL import Image, ImageFile


class PlainPicture(ImageFile.ImageFile):
    """A format of a user's own: a word, then the grey of 4 x 4 pixels."""

    format = "PLAIN"

    def _open(self):
        self.fp.seek(5)
        self._mode, self._size = "L", (4, 4)
        self.tile = [ImageFile._Tile("raw", (0, 0, 4, 4), 5, ("L", 0, 1))]


@pytest.fixture
def plain_format():
    Image.register_open("PLAIN", PlainPicture, lambda start: start[:5] == b"PLAIN")
    yield b"PLAIN" + bytes([7] * 16)
    del Image.OPEN["PLAIN"]
    Image.ID.remove("PLAIN")
