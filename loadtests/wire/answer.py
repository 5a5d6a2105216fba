"""What has come of one answer so far, written into its record."""

from __future__ import annotations

from loadtests.load.planned import Endpoint
from loadtests.measure.record import Outcome, Record
from loadtests.wire.events import Frames, Part, Unreadable, body_kind, frame_data, read_part

# Beyond it the body of an error is not looked at for its kind.
ERROR_BODY = 64 * 1024


class Answer:
    """Takes an answer's head and bytes with the times at which they were read."""

    __slots__ = (
        "_endpoint",
        "_error",
        "_finish_reason",
        "_frames",
        "_keep",
        "_streams",
        "_texts",
        "_whole",
        "done",
        "events",
        "record",
    )

    def __init__(self, record: Record, endpoint: Endpoint, keep_text: bool) -> None:
        self.record = record
        self.events = 0  # events with text
        self.done = False  # nothing that comes now changes what it was
        self._endpoint: Endpoint = endpoint
        self._keep = keep_text
        self._streams = False
        self._frames = Frames()
        self._texts: list[str] = []
        self._whole: list[bytes] = []
        self._finish_reason: str | None = None
        self._error: str | None = None

    @property
    def text(self) -> str:
        """What it said so far; empty unless the text was to be kept."""
        return "".join(self._texts)

    def head(self, status: int, content_type: bytes, request_id: str, retry_after: bool) -> None:
        """Take the status line and headers."""
        self.record.status = status
        self.record.request_id = request_id
        self.record.retry_after = retry_after
        self._streams = status == 200 and content_type.startswith(b"text/event-stream")
        if status == 200 and self.record.stream and not self._streams:
            self._error = "not a stream"

    def feed(self, at: float, data: bytes) -> None:
        """Take bytes of the body that were read at this time."""
        if not self._streams:
            self._whole.append(data)
            return
        for frame in self._frames.feed(data):
            name, content = frame_data(frame)
            if content:
                self._event(at, name, content)

    def _event(self, at: float, name: bytes, content: bytes) -> None:
        try:
            part = read_part(self._endpoint, content)
        except Unreadable:
            self._error = self._error or "unreadable event"
            return
        if part.carries:
            record = self.record
            if not self.events:
                record.first_s = at
            self.events += 1
            record.event_s.append(at)
        self._take(part)
        if (name == b"error" or part.error is not None) and self._error is None:
            self._error = f"error event: {part.error or 'error'}"

    def _take(self, part: Part) -> None:
        record = self.record
        if part.text:
            record.text_bytes += (
                len(part.text) if part.text.isascii() else len(part.text.encode(errors="replace"))
            )
            if self._keep:
                self._texts.append(part.text)
        if part.finish_reason is not None:
            self._finish_reason = part.finish_reason
        self.done = self.done or part.done
        if part.prompt_tokens is not None:
            record.usage_seen = True
            record.prompt_tokens = part.prompt_tokens
            record.cached_tokens = part.cached_tokens
            record.completion_tokens = part.completion_tokens

    def complete(self, at: float) -> None:
        """Settle the record: the response was whole as far as HTTP is concerned."""
        record = self.record
        if record.status != 200:
            body = b"" if sum(map(len, self._whole)) > ERROR_BODY else b"".join(self._whole)
            record.outcome = _refused(record.status)
            record.error = f"{record.status} {body_kind(body)}".rstrip()
        elif self._streams:
            if self._error is None and not self.done and self._finish_reason is None:
                self._error = "truncated"
        elif self._error is None:
            self._read_whole()
        self._settle(at, self._error)

    def _read_whole(self) -> None:
        try:
            part = read_part(self._endpoint, b"".join(self._whole))
        except Unreadable:
            self._error = "unreadable answer"
            return
        self._take(part)
        self._error = part.error

    def broken(self, at: float, kind: str) -> None:
        """Settle the record: the answer, or the request before it, broke off in this way.

        An error that the answer itself told before is the better reason.
        """
        self._settle(at, self._error or kind)

    def cancelled(self, at: float) -> None:
        """Settle the record: the client has left."""
        record = self.record
        record.end_s = at
        record.outcome = Outcome.CANCELLED

    def _settle(self, at: float, error: str | None) -> None:
        record = self.record
        record.end_s = at
        if error is not None:
            record.outcome = Outcome.ERROR
            record.error = error
        elif record.error is None:
            record.outcome = Outcome.OK

    def check(self, reference: str) -> None:
        """Compare the text with the right one; a part of it is right where not all of it came."""
        record = self.record
        record.checked = record.outcome is Outcome.OK or bool(self._texts)
        whole = record.outcome is Outcome.OK and self._finish_reason != "length"
        said = self.text
        right = said == reference if whole else reference.startswith(said)
        record.wrong = record.checked and not right


def _refused(status: int) -> Outcome:
    return Outcome.REJECTED if status in (429, 503) else Outcome.ERROR
