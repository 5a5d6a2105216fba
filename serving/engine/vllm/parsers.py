"""Parsers of tool calls and of reasoning that an operator adds to vLLM's own.

`vllm serve` loads the files that its arguments name before it makes its app; so does this.
"""

from __future__ import annotations

from argparse import Namespace

from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager


def load_plugins(args: Namespace) -> None:
    """Load the files that `engine_args` name as `tool_parser_plugin` and
    `reasoning_parser_plugin`."""
    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
