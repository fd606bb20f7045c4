"""Pictures read as pillow reads them; more broken ones are in test_check_formats.py."""

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.readers import ReadError, read_header, read_image

KINDS = {
    ".png": "uint8 uint16 bool rgb",
    ".tif": "uint8 uint16 float32 bool rgb",
    ".bmp": "uint8 rgb",
    ".jpg": "uint8 rgb",
}


@pytest.mark.parametrize(("suffix", "dtype"), [(suffix, dtype) for suffix in KINDS for dtype in KINDS[suffix].split()])
def test_pictures_agree_with_pillow(tmp_path: Path, dtype: str, suffix: str) -> None:
    shape = (5, 7, 3) if dtype == "rgb" else (5, 7)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    if dtype in {"uint16", "float32"}:
        pixels = pixels.astype(dtype) * 200
    Image.fromarray(pixels > 99 if dtype == "bool" else pixels).save(tmp_path / f"p{suffix}")
    header, read = read_header(tmp_path / f"p{suffix}"), read_image(tmp_path / f"p{suffix}")
    expected = np.asarray(Image.open(tmp_path / f"p{suffix}"))
    expected = np.moveaxis(expected, -1, 0) if dtype == "rgb" else expected[None]
    assert np.array_equal(read.array, expected)
    assert (header.shape, header.channels, header.dtype) == ((5, 7), len(expected), read.array.dtype)
    assert np.array_equal(read.affine, np.eye(4))


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_opaque_pixels_lose_their_alpha(tmp_path: Path, mode: str, channels: int, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels + 1)).astype("uint8")
    pixels[..., -1] = 255
    Image.fromarray(pixels, mode).save(tmp_path / f"p{suffix}")
    assert read_header(tmp_path / f"p{suffix}").channels == channels
    assert np.array_equal(read_image(tmp_path / f"p{suffix}").array, np.moveaxis(pixels[..., :-1], -1, 0))
    pixels[2, 3, -1] = 254
    Image.fromarray(pixels, mode).save(tmp_path / f"p{suffix}")
    with pytest.raises(ReadError, match="transparency: found pixels of opacity 254"):
        read_image(tmp_path / f"p{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_palette_is_classes_in_a_label_and_colours_elsewhere(tmp_path: Path, suffix: str) -> None:
    indices = np.random.default_rng(0).integers(0, 3, (5, 7)).astype("uint8")
    for name, palette in (("voc", [0, 0, 0, 128, 0, 0, 0, 128, 0]), ("grey", [9, 9, 9, 5, 5, 5, 200, 200, 200])):
        picture = Image.fromarray(indices)
        picture.putpalette(palette)
        path = tmp_path / f"{name}{suffix}"
        picture.save(path)
        label, image = read_image(path, label=True), read_image(path)
        assert np.array_equal(label.array[0], indices)
        assert read_header(path, label=True).channels == 1
        colours = np.array(palette).reshape(3, 3)[indices]
        assert np.array_equal(image.array, np.moveaxis(colours, -1, 0)[: 1 if name == "grey" else 3])
        assert read_header(path).channels == len(image.array)


def test_other_colours_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4)).save(tmp_path / "p.tif")
    with pytest.raises(ReadError, match="mode CMYK"):
        read_header(tmp_path / "p.tif")


def test_pages_size_and_format_of_pictures(tmp_path: Path) -> None:
    page = Image.new("L", (4, 4))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(ReadError, match="pages"):
        read_image(tmp_path / "pages.tif")
    page.save(tmp_path / "gif.gif")
    (tmp_path / "gif.gif").rename(tmp_path / "gif.png")
    with pytest.raises(ReadError, match="format"):
        read_image(tmp_path / "gif.png")
    page.save(tmp_path / "huge.bmp")
    raw = bytearray((tmp_path / "huge.bmp").read_bytes())
    struct.pack_into("<2i", raw, 18, 60000, 60000)
    (tmp_path / "huge.bmp").write_bytes(raw)
    with pytest.raises(ReadError):
        read_header(tmp_path / "huge.bmp")


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20)).astype("uint8")).save(tmp_path / "p.png")
    raw = (tmp_path / "p.png").read_bytes()
    for bit in random.Random(0).sample(range(0, 8 * (len(raw) - 12)), 50):  # the last 12 bytes only say that it ends
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "p.png").write_bytes(broken)
        with pytest.raises(ReadError):
            read_image(tmp_path / "p.png")
