"""instructor in its default mode, whole and as a partial object that grows."""

from __future__ import annotations

import json
import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel

job = json.load(sys.stdin)
client = instructor.from_openai(OpenAI(api_key=job["key"], base_url=f"{job['url']}/v1"))


class User(BaseModel):
    name: str
    age: int


messages = [{"role": "user", "content": "Extract: Jason is 25 years old."}]
user = client.chat.completions.create(
    model=job["model"], response_model=User, messages=messages, temperature=0
)
*_, partial = client.chat.completions.create_partial(
    model=job["model"], response_model=User, messages=messages, temperature=0
)
print(
    json.dumps(
        {"mode": str(client.mode), "user": user.model_dump(), "partial": partial.model_dump()}
    )
)
