"""The command line: parses, calls, prints. Only Typer lives here; heavy modules are imported inside a command."""

from sweeper.cli.program import app as app
from sweeper.cli.program import main as main
