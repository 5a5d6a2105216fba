"""Which of a provider's APIs answers each endpoint of ours.

A path that is not here has no provider behind it: what the table of endpoints lets through to a
hosted model is decided by the model's abilities (`serving/router/resolve.py`), and a test holds the
two equal.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.catalogue.spec import UpstreamSpec
from serving.errors import InvalidRequest
from serving.upstream.chats import chat_form, legacy_form
from serving.upstream.dialects import Dialect
from serving.upstream.embeddings import embeddings_form
from serving.upstream.form import Form
from serving.upstream.messages import count_form, messages_form
from serving.upstream.responses import responses_form
from serving.wire.messages import HttpCall

FORMS: dict[str, Callable[[HttpCall, bytes, UpstreamSpec, Dialect], Form]] = {
    "/v1/chat/completions": chat_form,
    "/v1/completions": legacy_form,
    "/v1/embeddings": embeddings_form,
    "/v1/messages": messages_form,
    "/v1/messages/count_tokens": count_form,
    "/v1/responses": responses_form,
}


def http_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """The form of a request to one of the endpoints.

    Raises:
        InvalidRequest: no provider answers at this path, or the body is no JSON object.
        InvalidField: the provider cannot do something that is asked for.
    """
    make = FORMS.get(call.path)
    if make is None:
        raise InvalidRequest(
            f"model '{call.model}' of {dialect.name} does not answer at {call.path}"
        )
    return make(call, body, spec, dialect)
