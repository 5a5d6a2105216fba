from __future__ import annotations

from contextlib import closing
from pathlib import Path

from loadtests.inside.ask import Asker
from loadtests.inside.pages import model_ids, page
from loadtests.known.process import KnownProcess
from loadtests.measure.record import Outcome


async def test_each_request_is_answered_with_its_record_and_text(tmp_path: Path) -> None:
    server = KnownProcess.start(tmp_path / "log", first_s=0.01, gap_s=0.001)
    try:
        assert await model_ids(server.url, "k") == ["known"]
        assert (await page(f"{server.url}/nothing", "k"))[0] == 404
        with closing(Asker(server.url, "k", timeout_s=10)) as ask:
            for stream in (True, False):
                answered = await ask("create_completion", "m", "a b", 3, stream=stream)
                record = answered.record
                assert (record.outcome, answered.text) == (Outcome.OK, "word word word ")
                assert (record.prompt_tokens, record.completion_tokens) == (2, 3)
                assert (record.ttft_s is not None) == stream
    finally:
        server.kill()
