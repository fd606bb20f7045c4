"""What the server takes at most, and how it says no: a status and one line of JSON."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds on what a client can make the server do; all are on unless set otherwise."""

    body: int = 512 * MIB  # bytes of a request
    voxels: int = 2**28  # pixels or voxels of an image, by its header, and of the same once it is prepared
    unpacked: int = 2048 * MIB  # bytes that a zip holds, counted while it is unpacked
    files: int = 5000  # in a zip
    fields: int = 4  # of a form, the image among them
    headers_s: float = 10  # for the first line and the headers of a request
    pause_s: float = 10  # without a byte of the body
    unread_s: float = 30  # in which a client takes nothing of an answer
    upload_s: float = 300  # for the whole body
    predict_s: float = 900  # for a prediction
    slots: int = 1  # predictions at once, each with networks of its own
    queue: int = 32  # images that wait or are being sent
    connections: int = 512
    kept_s: float = 1800  # that a result can be fetched
    kept: int = 200  # results; beyond them, and beyond their bytes, the oldest ones go
    kept_bytes: int = 4096 * MIB

    @property
    def places(self) -> int:
        """Images that are in the server before the next one is sent away."""
        return self.slots + self.queue


class Refusal(Exception):
    """A request that is not served: an HTTP status, a line that says why, and after how many seconds to come again."""

    def __init__(self, status: int, line: str, retry_after: int | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.retry_after = status, line, retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
