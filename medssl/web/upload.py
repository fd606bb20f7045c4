"""Takes the form of `POST /api/predict` as it streams in: one image, which goes to a file, and a few short fields.

The image lies in the job's folder under a name of the server's own; what the client calls it is text and never a path.
"""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from medssl.web.limits import Limits, Refusal

IMAGE, FIELDS = "image", ("model", "flips")
LONGEST_FIELD = 200  # bytes
LONGEST_NAME, SHOWN = 255, 80  # characters of a file's name, and those of them that are kept


@dataclass
class Upload:
    """A form as received: the file, what the client calls it, and its fields."""

    path: Path
    name: str = ""
    fields: dict[str, str] = field(default_factory=dict)


async def receive(request: Request, path: Path, limits: Limits) -> Upload:
    """Write the form's image to a path that does not exist yet; raises Refusal, and leaves the path to the caller then."""
    boundary = boundary_of(request, limits)
    form = _Form(Upload(path), await asyncio.to_thread(path.open, "xb"), limits)
    with contextlib.closing(form):
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": form.begin,
                    "on_header_field": form.header_name,
                    "on_header_value": form.header_value,
                    "on_header_end": form.header_end,
                    "on_headers_finished": form.headers_end,
                    "on_part_data": form.data,
                    "on_part_end": form.part_end,
                    "on_end": form.end,
                },
            )
            async for part in chunks(request, limits):
                parser.write(part)
        except FormParserError:
            raise Refusal(400, "body: found a broken form, expected multipart/form-data as its boundary says") from None
    return form.whole()


def boundary_of(request: Request, limits: Limits) -> bytes:
    """The boundary of the form; raises Refusal for what its headers alone give away."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise Refusal(415, "Content-Type: found another type or none, expected multipart/form-data")
    if not options.get(b"boundary"):
        raise Refusal(400, "Content-Type: found no boundary, expected one of 1 to 70 characters")
    if "content-encoding" in request.headers:
        raise Refusal(415, "Content-Encoding: found one, expected the form as it is")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body:
        raise too_long(limits)
    return options[b"boundary"]


def too_long(limits: Limits) -> Refusal:
    return Refusal(413, f"body: found more than {limits.body} bytes, which is all that this server takes")


async def chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body in parts; raises Refusal for one that is too long or too slow."""
    clock = asyncio.get_running_loop().time
    stream, size, end = request.stream(), 0, clock() + limits.upload_s
    while True:
        try:
            async with asyncio.timeout_at(min(end, clock() + limits.pause_s)):
                part = await anext(stream, None)
        except TimeoutError:
            raise Refusal(408, f"body: found no end of it in time ({limits.pause_s:g} s without a byte end it)") from None
        if part is None:
            return
        size += len(part)
        if size > limits.body:
            raise too_long(limits)
        yield part


class _Form:
    """Takes the parser's events one after the other; raises Refusal for any that no honest form has."""

    def __init__(self, upload: Upload, image: IO[bytes], limits: Limits) -> None:
        self.upload, self.image, self.limits = upload, image, limits
        self.parts, self.ended = 0, False
        self.target: IO[bytes] = io.BytesIO()
        self.name = ""
        self.header, self.value = bytearray(), bytearray()
        self.disposition: bytes | None = None

    def begin(self) -> None:
        self.parts += 1
        self.disposition = None
        if self.parts > self.limits.fields:
            raise Refusal(400, f"form: found more than {self.limits.fields} parts, expected one image and short fields")

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if bytes(self.header).lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        elif bytes(self.header).lower() in (b"content-transfer-encoding", b"content-encoding"):
            raise Refusal(415, "form: found an encoded part, expected its bytes as they are")
        self.header.clear()
        self.value.clear()

    def headers_end(self) -> None:
        kind, options = parse_options_header(self.disposition or b"")
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or name not in (IMAGE, *FIELDS):
            raise Refusal(400, f"form: found a part of another name, expected {IMAGE}, {' or '.join(FIELDS)}")
        if name in self.upload.fields or (name == IMAGE and self.upload.name):
            raise Refusal(400, f"form: found {name} twice, expected it once")
        self.name = name
        if name != IMAGE:
            self.target = io.BytesIO()
            return
        if b"filename" not in options:
            raise Refusal(400, "image: found text, expected a file")
        self.upload.name = name_of(options[b"filename"])
        self.target = self.image

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.name != IMAGE and self.target.tell() + end - start > LONGEST_FIELD:
            raise Refusal(400, f"{self.name}: found more than {LONGEST_FIELD} bytes, expected a short word")
        self.target.write(data[start:end])

    def part_end(self) -> None:
        if isinstance(self.target, io.BytesIO):
            self.upload.fields[self.name] = self.target.getvalue().decode("utf-8", "replace")

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.image.close()

    def whole(self) -> Upload:
        """The form; raises Refusal where it broke off or had no image."""
        if not self.ended:
            raise Refusal(400, "body: found no end of the form, expected its last boundary")
        if not self.upload.name:
            raise Refusal(400, "image: found none, expected one file")
        return self.upload


def name_of(raw: bytes) -> str:
    """What a client calls its file, fit to be shown and put into a header; raises Refusal for what is no file's name."""
    name = raw.decode("utf-8", "replace")
    if not name:
        raise Refusal(400, "image: found none, expected one file")
    if len(name) > LONGEST_NAME or not name.isprintable() or re.search(r'[/\\<>"|:*?]', name):
        raise Refusal(400, "image: found a name with a path, signs or a length that file names do not have")
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name)
    return plain[-SHOWN:].lstrip(".-") or "image"
