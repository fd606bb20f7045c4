"""Pictures read as pillow reads them; more broken ones are in test_check_formats.py."""

import random
import struct
import zlib
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


def png(path: Path, bits: int, colours: int, samples: np.ndarray, exif: bytes = b"") -> None:
    """A PNG by hand: samples of 2 or 4 bits (row, column), packed, or of 16 bits (row, column, sample); Exif at its end."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in samples]
    head = struct.pack(">2I5B", samples.shape[1], samples.shape[0], bits, colours, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))]
    chunks += [chunk(b"eXIf", exif)] if exif else []
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))


def tiff(path: Path, samples: np.ndarray, photometric: int, form: int = 1) -> None:
    """A TIFF by hand, of samples (row, column) or (row, column, colour)."""
    count, bits = samples[0, 0].size, samples.itemsize * 8
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    tags = {256: samples.shape[1], 257: samples.shape[0], 259: 1, 262: photometric, 273: 8, 277: count, 278: len(samples)}
    entries = [struct.pack("<2HIHxx", tag, 3, 1, number) for tag, number in (*tags.items(), (339, form))]
    entries.append(struct.pack("<2H2I", 279, 4, 1, len(data)))
    entries.append(
        struct.pack("<2HIHxx", 258, 3, 1, bits) if count == 1 else struct.pack("<2H2I", 258, 3, count, 8 + len(data))
    )
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    extra = struct.pack(f"<{count}H", *[bits] * count)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data) + len(extra)) + data + extra + directory)


@pytest.mark.parametrize("colours", [2, 4, 6])
def test_a_png_of_16_bits_a_colour_is_refused(tmp_path: Path, colours: int) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (5, 7, {2: 3, 4: 2, 6: 4}[colours]))
    png(tmp_path / "p.png", 16, colours, samples)
    with pytest.raises(ReadError, match="bits: found 16"):
        read_header(tmp_path / "p.png")


def test_tiffs_that_pillow_reads_as_other_values(tmp_path: Path) -> None:
    path, draw = tmp_path / "p.tif", np.random.default_rng(0)
    tiff(path, draw.integers(0, 65536, (5, 7, 3)).astype("u2"), photometric=2)
    with pytest.raises(ReadError, match="bits: found 16"):
        read_header(path)
    tiff(path, draw.integers(0, 65536, (5, 7)).astype("u2"), photometric=0)
    with pytest.raises(ReadError, match="WhiteIsZero of 16 bits"):
        read_header(path)
    for form, dtype in ((1, "u4"), (2, "i4")):
        limits = np.iinfo(dtype)
        array = draw.integers(limits.min, limits.max, (5, 7)).astype(dtype)
        tiff(path, array, photometric=1, form=form)
        assert read_header(path).dtype == dtype
        assert np.array_equal(read_image(path).array[0], array)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_classes_in_a_label(tmp_path: Path, bits: int) -> None:
    classes = np.arange(35, dtype=np.uint8).reshape(5, 7) % 2**bits
    png(tmp_path / "p.png", bits, 0, classes)
    assert np.array_equal(read_image(tmp_path / "p.png", label=True).array[0], classes)
    assert np.array_equal(read_image(tmp_path / "p.png").array[0], classes * (255 // (2**bits - 1)))


def test_pictures_to_be_turned_are_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7)).astype("uint8")
    exif = Image.Exif()
    exif[274] = 6
    for suffix in (".jpg", ".png", ".tif"):
        Image.fromarray(pixels).save(tmp_path / f"p{suffix}", exif=exif)
        with pytest.raises(ReadError, match="orientation: found 6"):
            read_header(tmp_path / f"p{suffix}")
    png(tmp_path / "late.png", 4, 0, pixels % 16, exif=exif.tobytes()[6:])
    with pytest.raises(ReadError, match="orientation: found 6"):
        read_image(tmp_path / "late.png")
