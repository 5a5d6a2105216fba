"""Helper processes, for work on a caller's body that must not stand in other callers' way.

Parsing JSON, checking a body, writing a chat through its template and compiling a grammar take
milliseconds to minutes, hold the interpreter and cannot be stopped within a thread. A helper is
a process: it can be given a deadline and a limit on its memory, and be killed.

The engine server gives a job to its pool (`pool.py`), which takes a helper (`helper.py`) or has the
nursery (`nursery.py`) fork one.
"""
