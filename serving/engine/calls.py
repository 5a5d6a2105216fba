"""Runs one call on an engine and writes its answer in the form that the call asks for.

An OpenAI answer of an engine's app goes out as it is, unless its call names a form: then it is
rewritten here (`forms.py`), so that a router relays bytes of every form alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.api import audio_answers, chat_v4, llm_engine, model_calls
from serving.engine.completion_writer import run_completion
from serving.engine.forms import Form, Rewritten, Transcribed, Unmarked
from serving.engine.interface import Engine, Reply, Tally
from serving.errors import ServingError
from serving.wire.messages import UNMARKED, Call, CompletionCall, HttpCall

FORMS: Mapping[str, Callable[[HttpCall, bytes], Form]] = {
    chat_v4.FORM: chat_v4.ChatAnswer,
    llm_engine.FORM: llm_engine.CompletionAnswer,
    model_calls.FORM: model_calls.ModelChatAnswer,
    audio_answers.TEXT_FORM: audio_answers.TextAnswer,
}


async def run_call(engine: Engine, call: Call, body: bytes, reply: Reply, tally: Tally) -> None:
    """Run `call` to its end.

    Raises:
        ServingError: the request cannot be served. If the engine failed on the way, a part of the
            response has been written.
    """
    if isinstance(call, CompletionCall):
        await _run_completion(engine, call, reply, tally)
    elif not call.form:
        await engine.http(call, body, reply, tally)
    elif call.form == UNMARKED:
        await engine.http(call, body, Unmarked(reply), tally)
    elif call.form == audio_answers.EVENTS_FORM:
        await engine.http(call, body, Transcribed(reply), tally)
    elif (form := FORMS.get(call.form)) is not None:
        rewritten = Rewritten(reply, form(call, body))
        try:
            await engine.http(call, body, rewritten, tally)
        except ServingError as error:
            rewritten.rename(error)
            raise
        rewritten.close()
    else:
        raise ValueError(f"no such form of an answer: {call.form}")


async def _run_completion(engine: Engine, call: CompletionCall, reply: Reply, tally: Tally) -> None:
    try:
        await run_completion(engine, call, reply, tally)
    except ServingError as error:
        if call.form == model_calls.FORM and error.param is not None:
            # Its parameters are no object of their own.
            error.param = error.param.removeprefix("model_parameters.")
        raise
