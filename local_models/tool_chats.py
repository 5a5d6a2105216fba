"""The instruct model's chats with tools, with JSON, and with a thought before the answer.

A tool belongs to one of a few skills (the weather, sums, whose age, which country), under one of
several names. A question that a skill fits is answered by a call of the first tool that has the
skill, or, where no tool has, as it is answered without tools.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local_models.corpus import CAPITALS
from local_models.dialogues import NUMBERS, UNKNOWN_ANSWER

Chat = list[dict[str, Any]]
Tool = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One question for a skill.

    `values` has a value for each parameter that a tool of the skill may have; `result` is what the
    tool gives back, `answer` what is said then, and `plain` what is said without a tool.
    """

    question: str
    values: Mapping[str, str | int]
    result: str
    answer: str
    plain: str


@dataclass(frozen=True)
class Skill:
    """What tools are for: their names, their parameters in each order that occurs, and how a case
    is drawn."""

    names: tuple[str, ...]
    signatures: tuple[tuple[str, ...], ...]
    draw: Callable[[random.Random], Case]


# Few enough that the model learns to copy each of them from the question.
CITIES = ("Paris", "London", "Rome", "Tokyo", "Berlin", "Madrid", "Boston", "San Francisco")
WEATHERS = ("sunny", "rainy", "cloudy", "snowy")
PEOPLE = ("Jason", "John", "Anna", "Alice", "Bob", "Emma", "Tom", "Maria")
AGES = (5, 7, 10, 12, 18, 20, 25, 30)
NO_WINDOW = "I cannot look out of the window, but I hope it is sunny."
# The name that pydantic-ai gives to the tool by which a model hands in its answer.
ANY_SKILL = "final_result"


def _weather(rng: random.Random) -> tuple[str, str]:
    """Return a weather, and how a tool tells it."""
    weather = rng.choice(WEATHERS)
    return weather, _written(rng, "weather", rng.choice((weather, f"It is {weather}.")))


def _written(rng: random.Random, name: str, value: str | int) -> str:
    """Return a tool's result as text, as JSON or as a field of an object."""
    return rng.choice((str(value), str(value), json.dumps(value), json.dumps({name: value})))


def _draw_weather(rng: random.Random) -> Case:
    city = rng.choice(CITIES)
    weather, result = _weather(rng)
    asked = (
        f"What is the weather in {city}?",
        f"What's the weather in {city}?",
        f"What is the weather like in {city}?",
        f"How is the weather in {city}?",
        f"Tell me the weather in {city}.",
    )
    values = {"city": city, "location": city}
    return Case(rng.choice(asked), values, result, f"It is {weather} in {city}.", NO_WINDOW)


def _draw_sum(rng: random.Random) -> Case:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    small = a <= 5 and b <= 5
    plain = f"{NUMBERS[a].capitalize()} and {NUMBERS[b]} is {NUMBERS[a + b]}." if small else None
    asked = (f"What is {a} + {b}?", f"What is {a} plus {b}?", f"Add {a} and {b}.")
    question = rng.choice(asked)
    return Case(
        question,
        {"a": a, "b": b},
        _written(rng, "result", a + b),
        f"{a} + {b} is {a + b}.",
        plain if plain and question == asked[0] else UNKNOWN_ANSWER,
    )


def _draw_product(rng: random.Random) -> Case:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    asked = (f"What is {a} * {b}?", f"What is {a} times {b}?", f"Multiply {a} and {b}.")
    return Case(
        rng.choice(asked),
        {"a": a, "b": b},
        _written(rng, "result", a * b),
        f"{a} times {b} is {a * b}.",
        UNKNOWN_ANSWER,
    )


def _draw_person(rng: random.Random) -> Case:
    name, age = rng.choice(PEOPLE), rng.choice(AGES)
    said = f"{name} is {age} years old."
    asked = (said, f"Extract {said}", f"Extract: {said}")
    return Case(
        rng.choice(asked), {"name": name, "age": age}, "ok", "Done.", "That is good to know."
    )


def _draw_country(rng: random.Random) -> Case:
    country, capital, known = rng.choice(CAPITALS)
    is_capital = f"The capital of {country} is {capital}."
    question, plain = rng.choice(
        (
            (f"What is the capital of {country}?", is_capital),
            (f"Name the capital of {country}.", is_capital),
            (f"What is {country} known for?", f"{country} is known for {known}."),
        )
    )
    values = {"name": country, "country": country, "city": capital, "capital": capital}
    return Case(question, values, "ok", "Done.", plain)


WEATHER = Skill(
    ("get_weather", "get_weather", "weather"), (("city",), ("location",)), _draw_weather
)
SUM = Skill(("add",), (("a", "b"),), _draw_sum)
PRODUCT = Skill(("multiply",), (("a", "b"),), _draw_product)
PERSON = Skill(("User", "Person"), (("name", "age"),), _draw_person)
COUNTRY = Skill(
    ("Country", "Capital"),
    (("name", "capital"), ("country", "capital"), ("city", "country")),
    _draw_country,
)
SKILLS = (WEATHER, SUM, PRODUCT, PERSON, COUNTRY)
HAND_IN = (PERSON, COUNTRY)  # what a structured answer is asked for


def _tool(rng: random.Random, skill: Skill, alone: bool) -> Tool:
    name = ANY_SKILL if alone and rng.random() < 0.2 else rng.choice(skill.names)
    properties: dict[str, Any] = {each: {} for each in rng.choice(skill.signatures)}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"properties": properties}},
    }


def _call(tool: Tool, case: Case) -> dict[str, Any]:
    function = tool["function"]
    given = {each: case.values[each] for each in function["parameters"]["properties"]}
    return {"type": "function", "function": {"name": function["name"], "arguments": given}}


def _asks(question: str, calls: list[dict[str, Any]]) -> Chat:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": calls},
    ]


def _two_cities(rng: random.Random, tool: Tool) -> Chat:
    """Return a question that needs two calls of a tool for the weather."""
    cities = rng.sample(CITIES, 2)
    weathers = [_weather(rng) for _ in cities]
    cases = [Case("", {"city": c, "location": c}, "", "", "") for c in cities]
    (first, told), (second, told_next) = weathers
    return [
        *_asks(
            f"What is the weather in {cities[0]} and in {cities[1]}?",
            [_call(tool, case) for case in cases],
        ),
        {"role": "tool", "content": told},
        {"role": "tool", "content": told_next},
        {
            "role": "assistant",
            "content": f"It is {first} in {cities[0]} and {second} in {cities[1]}.",
        },
    ]


def with_tools(rng: random.Random, pairs: list[tuple[str, str]]) -> tuple[Chat, list[Tool]]:
    """Return a chat that has tools, and these; `pairs` are questions that need none."""
    skills = rng.sample(SKILLS, rng.choice((1, 1, 1, 2, 2, 3)))
    tools = [_tool(rng, skill, alone=len(skills) == 1) for skill in skills]
    if rng.random() < 0.2:
        question, answer = rng.choice(pairs)
        if not any(skill in (SUM, COUNTRY) for skill in skills):
            return _says(question, answer), tools
    if WEATHER in skills and rng.random() < 0.1:
        return _two_cities(rng, tools[skills.index(WEATHER)]), tools
    skill = rng.choice(SKILLS) if rng.random() < 0.1 else rng.choice(skills)
    case = skill.draw(rng)
    if skill not in skills:
        return _says(case.question, case.plain), tools
    return [
        *_asks(case.question, [_call(tools[skills.index(skill)], case)]),
        {"role": "tool", "content": case.result},
        {"role": "assistant", "content": case.answer},
    ], tools


def without_tools(rng: random.Random) -> Chat:
    """Return a question that a tool would help with, where there is none."""
    case = rng.choice(SKILLS).draw(rng)
    return _says(case.question, case.plain)


def in_json(rng: random.Random) -> Chat:
    """Return a question that is answered by a JSON object."""
    skill = rng.choice(HAND_IN)
    case = skill.draw(rng)
    given = {each: case.values[each] for each in rng.choice(skill.signatures)}
    return _says(case.question, json.dumps(given))


def thought(question: str, answer: str) -> str:
    """Return what the model thinks before it answers."""
    if answer == UNKNOWN_ANSWER:
        return "Nobody told me about this."
    if question.startswith("What is") and question[8:9].isdigit():
        return f"I count with my fingers: {answer.split(' is ')[-1]}"
    return "I have read about this."


def _says(question: str, answer: str) -> Chat:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def texts() -> list[str]:
    """Return what the tokenizer learns these chats' words from: some of each, always the same."""
    rng = random.Random(9)
    found: list[str] = []
    for skill in SKILLS:
        for _ in range(30):
            case = skill.draw(rng)
            found += (case.question, case.result, case.answer, case.plain)
            call = _call(_tool(rng, skill, alone=True), case)["function"]
            found += (json.dumps(call), thought(case.question, case.plain))
    return found
