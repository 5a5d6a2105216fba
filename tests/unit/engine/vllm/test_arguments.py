"""What our own settings are to vLLM, by its own parser."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from serving.catalogue.spec import EngineSpec
from serving.engine.vllm.arguments import MAX_QUEUED, cli_arguments


def engine_args(**fields: Any) -> AsyncEngineArgs:
    spec = EngineSpec.model_validate({"id": "m", "weights": "w", "context": 128, **fields})
    parser = make_arg_parser(FlexibleArgumentParser())
    parsed: Namespace = parser.parse_args(cli_arguments(spec))
    return AsyncEngineArgs.from_cli_args(parsed)


def test_requests_of_a_lower_class_make_room_for_others() -> None:
    """vLLM's scheduler preempts by the priorities that `patches/turns.py` gives."""
    assert engine_args().scheduling_policy == "priority"


def test_a_queue_is_not_longer_than_callers_wait() -> None:
    assert engine_args().max_num_queued_reqs == MAX_QUEUED


def test_the_operator_s_arguments_come_first() -> None:
    given = {"scheduling_policy": "fcfs", "max-num-queued-reqs": 7}
    args = engine_args(engine_args=given)
    assert (args.scheduling_policy, args.max_num_queued_reqs) == ("fcfs", 7)
