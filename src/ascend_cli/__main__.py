"""`python -m ascend_cli` is `ascend`."""

from ascend_cli.cli import main

main()
