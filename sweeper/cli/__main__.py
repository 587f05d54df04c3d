"""`python -m sweeper.cli` runs the command line."""

from sweeper.cli.program import main

main()
