"""How large a regular expression becomes when its repetitions are written out.

Grammar compilers write them out: `[a-z]{1,5000}` in a schema takes seconds, and `(a{100}){50}` is
as large. The estimate knows the syntax that engines have in common and counts whatever else it
meets as one character; whether the expression is valid is for them to say.
"""

from __future__ import annotations

import re

_TIMES = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")
# Escapes with a name or number in braces, which is no repetition.
_NAMED = re.compile(r"\\[xupPN]\{[^}]*\}")


def pattern_size(pattern: str) -> int:
    """The characters, classes and groups of `pattern`, each as often as it may be repeated."""
    # Of the current group: the size of its items but the last, and of the last, which may yet be
    # repeated. `outer` has the same of the groups around it.
    outer: list[tuple[int, int]] = []
    items = last = 0
    at = 0
    while at < len(pattern):
        char = pattern[at]
        end = at + 1
        if char == "(":
            outer.append((items, last))
            items = last = 0
        elif char == ")" and outer:
            inside = items + last
            before, one = outer.pop()
            items, last = before + one, inside + 1
        elif char == "{" and (times := _TIMES.match(pattern, at)):
            last *= max(_number(times[1]), _number(times[2]), 1)
            end = times.end()
        else:
            items, last = items + last, 1
            if char == "[":
                end = _end_of_class(pattern, at)
            elif char == "\\":
                named = _NAMED.match(pattern, at)
                end = named.end() if named else at + 2
        at = end
    return items + last + sum(before + one for before, one in outer)


def _number(digits: str) -> int:
    # Nine digits are more than any limit.
    return int(digits[:9] or 0)


def _end_of_class(pattern: str, at: int) -> int:
    """Behind the `]` of the class that opens at `at`; without one, behind its `[`."""
    end = at + 1
    if pattern[end : end + 1] == "^":
        end += 1
    if pattern[end : end + 1] == "]":
        end += 1
    while end < len(pattern) and pattern[end] != "]":
        end += 2 if pattern[end] == "\\" else 1
    return end + 1 if end < len(pattern) else at + 1
