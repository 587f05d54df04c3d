"""Where the program begins, before anything is imported that takes time or that a user's file could stand in for."""

from sweeper.system import interrupt

interrupt.heed()


def main() -> None:
    """The program, as the shell calls it."""
    from sweeper.system import subprocesses

    subprocesses.settle()
    from sweeper import cli

    cli.main()


if __name__ == "__main__":
    main()
