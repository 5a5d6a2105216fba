"""The parsers that a spec may name are the installed vLLM's, and become its arguments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from serving.catalogue.parsers import REASONING_PARSERS, TOOL_PARSERS
from serving.catalogue.spec import EngineSpec
from serving.engine.vllm.arguments import cli_arguments
from serving.engine.vllm.parsers import load_plugins

PLUGIN = """
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser
from vllm.tool_parsers import ToolParserManager

ToolParserManager.register_module("of_the_plugin", module=Hermes2ProToolParser)
"""


def arguments(**fields: Any) -> Namespace:
    spec = EngineSpec.model_validate({"id": "m", "weights": "w", "context": 128, **fields})
    parser = make_arg_parser(FlexibleArgumentParser())
    args: Namespace = parser.parse_args(cli_arguments(spec))
    validate_parsed_serve_args(args)
    return args


def test_the_known_names_are_vllms() -> None:
    assert set(ToolParserManager.list_registered()) == TOOL_PARSERS
    assert set(ReasoningParserManager.list_registered()) == REASONING_PARSERS


def test_they_become_vllms_arguments() -> None:
    args = arguments(tool_parser="hermes", reasoning_parser="deepseek_v3")
    assert args.tool_call_parser == "hermes"
    assert args.enable_auto_tool_choice
    assert args.reasoning_parser == "deepseek_v3"
    args = arguments()
    assert args.tool_call_parser is None
    assert not args.enable_auto_tool_choice
    assert not args.reasoning_parser


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    assert arguments(tool_parser="hermes").exclude_tools_when_tool_choice_none
    shown = arguments(engine_args={"exclude_tools_when_tool_choice_none": False})
    assert not shown.exclude_tools_when_tool_choice_none


@pytest.fixture
def registered() -> Iterator[dict[str, Any]]:
    parsers: dict[str, Any] = ToolParserManager.tool_parsers
    yield parsers
    parsers.pop("of_the_plugin", None)


def test_a_plugin_is_loaded(tmp_path: Path, registered: dict[str, Any]) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    load_plugins(
        arguments(tool_parser="of_the_plugin", engine_args={"tool_parser_plugin": str(file)})
    )
    assert "of_the_plugin" in registered
