"""`python -m serving.cli`."""

from serving.cli.main import main

main()
