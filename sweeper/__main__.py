"""The entry point, which runs before any import that takes time or that a user's file could shadow."""

from sweeper.system import interrupt

interrupt.heed()


def main() -> None:
    """Run the program, as the shell calls it."""
    from sweeper.system import subprocesses

    subprocesses.settle()
    from sweeper import cli

    cli.main()


if __name__ == "__main__":
    main()
