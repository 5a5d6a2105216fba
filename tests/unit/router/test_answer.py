"""What an answer keeps while nobody takes it."""

from __future__ import annotations

import pytest

from serving.router.answer import MAX_UNREAD, Answer
from serving.wire.messages import JSON_HEAD, SSE_HEAD, Head

PART = b"x" * (MAX_UNREAD // 4)


class Sender:
    def __init__(self) -> None:
        self.cancelled: list[int] = []

    def cancel(self, stream: int) -> None:
        self.cancelled.append(stream)


@pytest.mark.parametrize(("head", "given_up"), [(JSON_HEAD, False), (SSE_HEAD, True)])
def test_a_stream_nobody_reads_is_given_up_and_a_whole_answer_is_kept(
    head: Head, given_up: bool
) -> None:
    sender = Sender()
    answer = Answer(sender, 3)
    answer.on_head(head)
    due: list[Answer] = []
    for _ in range(6):
        answer.on_data(PART, due)
    (one,) = due
    one.deliver(0.0)
    assert sender.cancelled == ([3] if given_up else [])
    assert (answer.failed is not None) == given_up
    assert answer.take() == PART * 6
