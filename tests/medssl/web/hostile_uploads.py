"""Uploads that no honest client sends, different in kind: each is a whole HTTP request, as bytes or parts of them.

Everything is made small and by hand; what claims or unpacks to gigabytes has kilobytes here. `CANARY` stands in a file of
this machine that some of them aim at.
"""

import gzip
import io
import itertools
import json
import pickle
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import made_files as make
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

CANARY = b"canary-1b3f9ac2"
BOUNDARY = b"between"
VOLUME = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
GREY = np.random.default_rng(0).integers(0, 251, (64, 48), np.uint16)
Request = bytes | Iterable[bytes]
HOSTILE: dict[str, Callable[[Path], Request]] = {}  # by name; of a folder in which files can be made, with the canary


def hostile(build: Callable[[Path], Request]) -> Callable[[Path], Request]:
    HOSTILE[build.__name__] = build
    return build


# --- requests ------------------------------------------------------------------------------------------------------------


def part(name: str, content: bytes, filename: bytes | None = None, *headers: bytes) -> bytes:
    """One part of a form."""
    called = b'; filename="' + filename + b'"' if filename is not None else b""
    lines = [b'Content-Disposition: form-data; name="' + name.encode() + b'"' + called, *headers]
    return b"--" + BOUNDARY + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + content + b"\r\n"


def request(
    body: bytes, *headers: bytes, kind: bytes = b"multipart/form-data; boundary=" + BOUNDARY, path: bytes = b""
) -> bytes:
    """A POST of a body whose length is told."""
    return head(b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *headers) + body


def head(*headers: bytes) -> bytes:
    own = {line.lower().partition(b":")[0] for line in headers}
    usual = [line for line in (b"Host: 127.0.0.1", b"Connection: close") if line.lower().partition(b":")[0] not in own]
    lines = [b"POST /api/predict HTTP/1.1", *usual, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def form(*parts: bytes, end: bytes = b"--" + BOUNDARY + b"--\r\n") -> bytes:
    return b"".join(parts) + end


def file(content: bytes, filename: bytes, model: bytes = b"pictures") -> bytes:
    """An honest request for a file, whatever that is."""
    return request(form(part("model", model), part("image", content, filename)))


def png() -> bytes:
    """A good picture."""
    stream = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


# --- forms that are none -------------------------------------------------------------------------------------------------


@hostile
def no_type(folder: Path) -> Request:
    return head(b"Content-Length: 3") + b"abc"


@hostile
def json_in_place_of_a_form(folder: Path) -> Request:
    return request(json.dumps({"image": "/etc/passwd"}).encode(), kind=b"application/json")


@hostile
def a_form_in_the_url_style(folder: Path) -> Request:
    return request(b"image=%2Fetc%2Fpasswd&model=pictures", kind=b"application/x-www-form-urlencoded")


@hostile
def no_boundary(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png")), kind=b"multipart/form-data")


@hostile
def another_boundary(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png")), kind=b"multipart/form-data; boundary=another")


@hostile
def a_boundary_of_kilobytes(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png")), kind=b"multipart/form-data; boundary=" + b"b" * 5000)


@hostile
def no_last_boundary(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png"), end=b""))


@hostile
def another_form_inside(folder: Path) -> Request:
    inner = b"--inner\r\nContent-Disposition: file; filename=a.png\r\n\r\n" + png() + b"\r\n--inner--\r\n"
    return request(form(part("image", inner, None, b"Content-Type: multipart/mixed; boundary=inner")))


@hostile
def thousands_of_parts(folder: Path) -> Request:
    return request(form(*(part("image", b"x", b"%d.png" % k) for k in range(5000))))


@hostile
def two_images(folder: Path) -> Request:
    return request(form(part("model", b"pictures"), part("image", png(), b"a.png"), part("image", png(), b"b.png")))


@hostile
def an_image_without_a_file(folder: Path) -> Request:
    return request(form(part("model", b"pictures"), part("image", b"/etc/passwd")))


@hostile
def no_image(folder: Path) -> Request:
    return request(form(part("model", b"pictures")))


@hostile
def a_field_that_is_none(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png"), part("weights", b"x", b"model.safetensors")))


@hostile
def a_field_of_megabytes(folder: Path) -> Request:
    return request(form(part("model", b"p" * 2**21), part("image", png(), b"a.png")))


@hostile
def a_model_that_is_a_path(folder: Path) -> Request:
    return request(form(part("model", b"../../../../etc"), part("image", png(), b"a.png")))


@hostile
def a_part_with_thousands_of_headers(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png", *(b"X-%d: y" % k for k in range(5000)))))


@hostile
def a_part_with_a_header_of_megabytes(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png", b"X: " + b"y" * 2**21)))


@hostile
def a_part_in_base64(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png", b"Content-Transfer-Encoding: base64")))


@hostile
def a_form_in_gzip(folder: Path) -> Request:
    return request(gzip.compress(form(part("image", bytes(2**24), b"a.png"))), b"Content-Encoding: gzip")


# --- HTTP that is none ---------------------------------------------------------------------------------------------------


@hostile
def a_body_without_end(folder: Path) -> Request:
    def parts() -> Iterator[bytes]:
        yield head(b"Content-Type: multipart/form-data; boundary=" + BOUNDARY, b"Transfer-Encoding: chunked")
        for piece in itertools.chain([part("image", b"", b"a.png")[:-2]], itertools.repeat(bytes(2**16), 2**14)):  # 1 GB
            yield b"%x\r\n" % len(piece) + piece + b"\r\n"

    return parts()


@hostile
def a_body_without_end_on_a_connection_that_stays(folder: Path) -> Request:
    kind = b"Content-Type: text/plain"
    yield head(kind, b"Transfer-Encoding: chunked", b"Connection: keep-alive")
    for _ in range(200):
        time.sleep(0.01)
        yield b"10000\r\n" + bytes(2**16) + b"\r\n"


@hostile
def a_body_that_says_it_is_a_terabyte(folder: Path) -> Request:
    kind = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY
    return head(kind, b"Content-Length: 1000000000000") + part("image", png(), b"a.png")


@hostile
def a_body_that_stops(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png")))[:-200]


@hostile
def a_body_that_drips(folder: Path) -> Request:
    whole = request(form(part("image", png(), b"a.png")))
    yield whole[:-100]
    for k in range(100):
        time.sleep(0.1)  # within the time between two bytes
        yield whole[k - 100 :][:1]


@hostile
def headers_that_drip(folder: Path) -> Request:
    yield b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for k in range(50):
        time.sleep(0.1)
        yield b"X-%d: y\r\n" % k


@hostile
def headers_of_megabytes(folder: Path) -> Request:
    return head(*(b"X-%d: " % k + b"y" * 100 for k in range(20000)))


@hostile
def a_length_below_zero(folder: Path) -> Request:
    return head(b"Content-Length: -5", b"Content-Type: multipart/form-data; boundary=b")


@hostile
def two_lengths(folder: Path) -> Request:
    return head(b"Content-Length: 5", b"Content-Length: 6", b"Content-Type: multipart/form-data; boundary=b") + b"abcdef"


@hostile
def a_length_and_chunks(folder: Path) -> Request:
    kind = b"Content-Type: multipart/form-data; boundary=b"
    return head(kind, b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\nGET /api/models HTTP/1.1\r\n\r\n"


@hostile
def a_chunk_of_no_size(folder: Path) -> Request:
    return head(b"Transfer-Encoding: chunked", b"Content-Type: multipart/form-data; boundary=b") + b"zz\r\nabc\r\n"


@hostile
def no_http_at_all(folder: Path) -> Request:
    return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))


@hostile
def another_site(folder: Path) -> Request:
    body = form(part("model", b"pictures"), part("image", png(), b"a.png"))
    return request(body, b"Origin: https://elsewhere.example")


@hostile
def a_frame_of_another_site(folder: Path) -> Request:
    return request(form(part("model", b"pictures"), part("image", png(), b"a.png")), b"Sec-Fetch-Site: cross-site")


@hostile
def a_name_that_became_this_machine(folder: Path) -> Request:
    return request(form(part("image", png(), b"a.png")), b"Host: elsewhere.example")


# --- names of files ------------------------------------------------------------------------------------------------------


@hostile
def a_name_with_a_path(folder: Path) -> Request:
    return file(png(), b"../../../../etc/cron.d/a.png")


@hostile
def a_name_with_a_path_of_windows(folder: Path) -> Request:
    return file(png(), b"..\\\\..\\\\a.png")


@hostile
def a_name_with_nul(folder: Path) -> Request:
    return file(png(), b"a.png\0.exe.png")


@hostile
def a_name_with_a_script(folder: Path) -> Request:
    return file(png(), b"<img src=x onerror=fetch(1)>.png")


@hostile
def a_name_with_a_header(folder: Path) -> Request:
    return file(png(), b"a.png\rSet-Cookie: b=c.png")


@hostile
def a_name_written_backwards(folder: Path) -> Request:
    return file(png(), "a\u202egnp.png".encode())


@hostile
def a_name_of_kilobytes(folder: Path) -> Request:
    return file(png(), b"a" * 3000 + b".png")


# --- files that are no images --------------------------------------------------------------------------------------------


class Runs:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@hostile
def nothing(folder: Path) -> Request:
    return file(b"", b"a.png")


@hostile
def a_pickle_called_a_picture(folder: Path) -> Request:
    return file(pickle.dumps(Runs(folder / "unpickled")), b"a.png")


@hostile
def a_pickle_in_a_numpy_file(folder: Path) -> Request:
    stream = io.BytesIO()
    np.save(stream, np.array([Runs(folder / "unpickled")], object), allow_pickle=True)
    return file(stream.getvalue(), b"a.npy")


@hostile
def weights_of_torch(folder: Path) -> Request:
    return file(_zipped({"archive/data.pkl": pickle.dumps(Runs(folder / "unpickled"))}), b"model.pt")


@hostile
def weights_of_torch_called_a_zip(folder: Path) -> Request:
    return file(_zipped({"archive/data.pkl": pickle.dumps(Runs(folder / "unpickled"))}), b"series.zip", b"volumes")


@hostile
def weights_of_safetensors(folder: Path) -> Request:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return file(struct.pack("<Q", len(header)) + header + bytes(4), b"model.safetensors")


@hostile
def a_page_called_a_picture(folder: Path) -> Request:
    return file(b"<!doctype html><script>fetch('//elsewhere.example')</script>", b"a.png")


@hostile
def a_drawing_with_a_script(folder: Path) -> Request:
    return file(b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', b"a.svg")


@hostile
def a_document_of_entities(folder: Path) -> Request:
    levels = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 10))
    return file(f'<!DOCTYPE a [<!ENTITY a0 "lol">{levels}]><a>&a9;</a>'.encode(), b"a.xml")


@hostile
def a_program(folder: Path) -> Request:
    return file(b"\x7fELF\x02\x01\x01" + bytes(200), b"a.dcm")


# --- archives ------------------------------------------------------------------------------------------------------------


def _zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _slices(folder: Path, count: int = 3, **tags: object) -> list[bytes]:
    place = folder / f"slices-{len(list(folder.iterdir()))}"
    make.series(place, np.repeat(VOLUME[:1], count, 0), **tags)
    return [path.read_bytes() for path in sorted(place.iterdir())]


@hostile
def a_zip_that_climbs_out(folder: Path) -> Request:
    files = {f"../../{k}.dcm": content for k, content in enumerate(_slices(folder))}
    return file(_zipped(files), b"a.zip", b"volumes")


@hostile
def a_zip_with_paths_from_the_root(folder: Path) -> Request:
    files = {f"{folder}/{k}.dcm": content for k, content in enumerate(_slices(folder))}
    return file(_zipped(files), b"a.zip", b"volumes")


@hostile
def a_zip_with_a_link(folder: Path) -> Request:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("0.dcm")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(folder / "canary"))
        for k, content in enumerate(_slices(folder)):
            archive.writestr(f"{k + 1}.dcm", content)
    return file(stream.getvalue(), b"a.zip", b"volumes")


@hostile
def a_zip_bomb(folder: Path) -> Request:
    return file(_zipped({"0.dcm": bytes(128) + b"DICM" + bytes(2**26)}), b"a.zip", b"volumes")


@hostile
def a_zip_bomb_of_entries_that_overlap(folder: Path) -> Request:
    inner = _zipped({"0.dcm": bytes(128) + b"DICM" + bytes(2**20)})
    at = inner.index(b"PK\1\2")
    end = inner.index(b"PK\5\6")
    listing, count = inner[at:end], 150
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(listing) * count, at, 0)
    return file(inner[:at] + listing * count + tail, b"a.zip", b"volumes")


@hostile
def a_zip_that_lies_about_sizes(folder: Path) -> Request:
    whole = bytearray(_zipped({"0.dcm": bytes(128) + b"DICM" + bytes(2**26)}))
    struct.pack_into("<I", whole, whole.index(b"PK\1\2") + 24, 500)
    struct.pack_into("<I", whole, 22, 500)
    return file(bytes(whole), b"a.zip", b"volumes")


@hostile
def a_zip_of_thousands_of_files(folder: Path) -> Request:
    return file(_zipped({f"{k}.dcm": b"" for k in range(5000)}, zipfile.ZIP_STORED), b"a.zip", b"volumes")


@hostile
def a_zip_with_a_password(folder: Path) -> Request:
    whole = bytearray(_zipped({"0.dcm": _slices(folder)[0]}))
    whole[6] |= 1
    whole[whole.index(b"PK\1\2") + 8] |= 1
    return file(bytes(whole), b"a.zip", b"volumes")


@hostile
def a_zip_in_zips(folder: Path) -> Request:
    content = _zipped({"0.dcm": _slices(folder)[0]})
    for _ in range(20):
        content = _zipped({"inner.zip": content})
    return file(content, b"a.zip", b"volumes")


@hostile
def a_zip_of_two_patients(folder: Path) -> Request:
    other = _slices(folder, PatientID="Q8", SeriesInstanceUID="1.2.3.4", StudyInstanceUID="1.2.9")
    files = {f"{k}.dcm": content for k, content in enumerate(_slices(folder) + other)}
    return file(_zipped(files), b"a.zip", b"volumes")


@hostile
def a_zip_with_a_file_without_a_name(folder: Path) -> Request:
    return file(_zipped({"x": b""}).replace(b"x", b"\0"), b"a.zip", b"volumes")


@hostile
def a_zip_of_broken_lzma(folder: Path) -> Request:
    whole = bytearray(_zipped({"0.dcm": b"\0\0\5\0" + bytes([255]) * 9}, zipfile.ZIP_STORED))
    whole[8] = whole[whole.index(b"PK\1\2") + 10] = zipfile.ZIP_LZMA
    return file(bytes(whole), b"a.zip", b"volumes")


@hostile
def a_zip_cut_short(folder: Path) -> Request:
    return file(_zipped({"0.dcm": _slices(folder)[0]})[:-30], b"a.zip", b"volumes")


# --- pictures ------------------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _drawn(*between: bytes, width: int = 48, height: int = 64, pixels: bytes | None = None) -> bytes:
    rows = b"".join(b"\0" + bytes(48) for _ in range(64))
    start = _chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(rows) if pixels is None else pixels)
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(between) + data + _chunk(b"IEND", b"")


@hostile
def a_png_bomb(folder: Path) -> Request:
    return file(_drawn(width=60000, height=60000, pixels=zlib.compress(bytes(2**24), 9)), b"a.png")


@hostile
def a_png_with_a_bomb_of_text(folder: Path) -> Request:
    text = b"Comment\0\0" + zlib.compress(bytes(2**26), 9)
    return file(_drawn(_chunk(b"zTXt", text), _chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**26), 9))), b"a.png")


@hostile
def a_png_of_many_frames(folder: Path) -> Request:
    frames = [Image.fromarray(np.full((64, 48), k, np.uint8)) for k in range(50)]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    return file(stream.getvalue(), b"a.png")


@hostile
def a_png_cut_short(folder: Path) -> Request:
    return file(png()[:1500], b"a.png")


@hostile
def a_png_with_another_bit(folder: Path) -> Request:
    whole = bytearray(png())
    whole[len(whole) // 2] ^= 16
    return file(bytes(whole), b"a.png")


@hostile
def a_jpeg_that_says_it_is_huge(folder: Path) -> Request:
    stream = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint8)).save(stream, "JPEG")
    whole = bytearray(stream.getvalue())
    struct.pack_into(">HH", whole, whole.index(b"\xff\xc0") + 5, 65500, 65500)
    return file(bytes(whole), b"a.jpg")


@hostile
def a_tiff_called_a_png(folder: Path) -> Request:
    stream = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint8)).save(stream, "TIFF")
    return file(stream.getvalue(), b"a.png")


@hostile
def a_picture_that_is_a_zip_too(folder: Path) -> Request:
    return file(png() + _zipped({"a.class": b"\xca\xfe\xba\xbe"}), b"a.png")


@hostile
def a_picture_called_a_volume(folder: Path) -> Request:
    return file(png(), b"a.nii.gz", b"volumes")


# --- volumes -------------------------------------------------------------------------------------------------------------


@hostile
def a_volume_that_says_it_is_huge(folder: Path) -> Request:
    content = make.nifti(VOLUME, dim=(40, "8h", (3, 30000, 30000, 30, 1, 1, 1, 1)))
    return file(gzip.compress(content), b"a.nii.gz", b"volumes")


@hostile
def a_gzip_bomb(folder: Path) -> Request:
    return file(gzip.compress(make.nifti(VOLUME)) + gzip.compress(bytes(2**22)) * 250, b"a.nii.gz", b"volumes")


@hostile
def a_gzip_in_a_gzip(folder: Path) -> Request:
    return file(gzip.compress(gzip.compress(make.nifti(VOLUME))), b"a.nii.gz", b"volumes")


@hostile
def a_gzip_whose_checksum_is_wrong(folder: Path) -> Request:
    whole = bytearray(gzip.compress(make.nifti(VOLUME)))
    whole[-6] ^= 1
    return file(bytes(whole), b"a.nii.gz", b"volumes")


@hostile
def a_volume_nowhere(folder: Path) -> Request:
    content = make.nifti(VOLUME, affine=(280, "12f", (float("nan"),) * 12))
    return file(gzip.compress(content), b"a.nii.gz", b"volumes")


@hostile
def a_volume_of_fewer_than_no_voxels(folder: Path) -> Request:
    return file(make.nifti(VOLUME, dim=(40, "8h", (3, -4, -5, 6, 1, 1, 1, 1))), b"a.nii", b"volumes")


@hostile
def a_volume_whose_voxels_lie_far_behind(folder: Path) -> Request:
    return file(make.nifti(VOLUME, offset=(108, "f", (2e9,))), b"a.nii", b"volumes")


@hostile
def a_volume_that_is_resampled_to_more_than_memory(folder: Path) -> Request:
    wide = (280, "12f", (1e5, 0, 0, 0, 0, 1e5, 0, 0, 0, 0, 1e5, 0))
    return file(make.nifti(VOLUME.astype(np.complex64), affine=wide), b"a.nii", b"volumes")


@hostile
def voxels_that_are_no_numbers(folder: Path) -> Request:
    return file(make.nifti(np.full((40, 40, 40), np.inf, np.float32)), b"a.nii", b"volumes")


# --- DICOM ---------------------------------------------------------------------------------------------------------------


def _dicom(folder: Path, **tags: object) -> bytes:
    path = folder / "made.dcm"
    make.dicom(path, GREY, **tags)
    return path.read_bytes()


@hostile
def a_deflated_dicom_bomb(folder: Path) -> Request:
    path = folder / "deflated.dcm"
    made = make.data_set(GREY)
    made.add_new(0x00091010, "OB", bytes(2**24))
    make.write(path, made, "1.2.840.10008.1.2.1.99")
    return file(path.read_bytes(), b"a.dcm")


@hostile
def a_dicom_of_a_million_frames(folder: Path) -> Request:
    return file(_dicom(folder, NumberOfFrames=1_000_000, Rows=65535, Columns=65535), b"a.dcm")


@hostile
def a_dicom_that_is_a_program_too(folder: Path) -> Request:
    return file(b"MZ" + bytes(126) + _dicom(folder)[128:], b"a.dcm")


@hostile
def a_dicom_of_endless_sequences(folder: Path) -> Request:
    made = _dicom(folder)
    at = made.index(struct.pack("<HH", 0x0010, 0x0020))
    opened = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return file(made[:at] + opened * 20000 + made[at:], b"a.dcm")


@hostile
def a_dicom_of_nested_frames(folder: Path) -> Request:
    made = make.data_set(np.zeros((2, 4, 4), np.uint16))
    inner = Dataset()
    for _ in range(150):
        outer = Dataset()
        outer.PerFrameFunctionalGroupsSequence = [inner]
        inner = outer
    made.PerFrameFunctionalGroupsSequence = [inner, inner]
    path = folder / "nested.dcm"
    make.write(path, made)
    return file(path.read_bytes(), b"a.dcm", b"volumes")


@hostile
def a_dicom_whose_jpeg_is_none(folder: Path) -> Request:
    path = folder / "jpeg.dcm"
    made = make.data_set(GREY)
    made.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(500)])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    make.write(path, made, "1.2.840.10008.1.2.4.90")
    return file(path.read_bytes(), b"a.dcm")


@hostile
def a_dicom_of_an_unknown_syntax(folder: Path) -> Request:
    made = _dicom(folder)
    syntax = str(ExplicitVRLittleEndian).encode()
    return file(made.replace(syntax, b"1.2.840.10008.9.9.9"[: len(syntax)].ljust(len(syntax), b"9")), b"a.dcm")


# --- HDF5 ----------------------------------------------------------------------------------------------------------------


def _mat(folder: Path, change: Callable[[h5py.File], None]) -> bytes:
    path = folder / f"made-{time.monotonic_ns()}.mat"
    with h5py.File(path, "w") as made:
        change(made)
    return path.read_bytes()


@hostile
def hdf5_with_storage_outside(folder: Path) -> Request:
    def change(made: h5py.File) -> None:
        outside = [(str(folder / "canary"), 0, len(CANARY))]
        made.create_dataset("cjdata/image", (3, 5), "u1", external=outside)

    return file(_mat(folder, change), b"a.mat")


@hostile
def hdf5_with_a_link_outside(folder: Path) -> Request:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.frombuffer(CANARY, np.uint8).reshape(3, 5)

    def change(made: h5py.File) -> None:
        made.create_group("cjdata")["image"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")

    return file(_mat(folder, change), b"a.mat")


@hostile
def hdf5_put_together_from_outside(folder: Path) -> Request:
    def change(made: h5py.File) -> None:
        layout = h5py.VirtualLayout((3, 5), "u1")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (3, 5))
        made.create_group("cjdata").create_virtual_dataset("image", layout)

    return file(_mat(folder, change), b"a.mat")


@hostile
def hdf5_whose_links_go_round(folder: Path) -> Request:
    def change(made: h5py.File) -> None:
        made.create_group("cjdata")["image"] = h5py.SoftLink("/cjdata/image")

    return file(_mat(folder, change), b"a.mat")


@hostile
def an_hdf5_bomb(folder: Path) -> Request:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(16)) + packer.flush()

    def change(made: h5py.File) -> None:
        data = made.create_dataset("cjdata/image", (10, 10), "u2", chunks=(10, 10), compression="gzip")
        data.id.write_direct_chunk((0, 0), packed)

    return file(_mat(folder, change), b"a.mat")


@hostile
def hdf5_that_says_it_is_huge(folder: Path) -> Request:
    def change(made: h5py.File) -> None:
        made.create_dataset("cjdata/image", (60000, 60000), "f8", chunks=(1000, 1000), compression="gzip")

    return file(_mat(folder, change), b"a.mat")


@hostile
def hdf5_of_objects(folder: Path) -> Request:
    def change(made: h5py.File) -> None:
        made.create_dataset("cjdata/image", (2, 2), h5py.string_dtype())

    return file(_mat(folder, change), b"a.mat")


@hostile
def hdf5_with_a_broken_head(folder: Path) -> Request:
    return file(b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 8, b"a.mat")
