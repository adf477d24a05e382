"""Entry point of the `perfpolicy` program."""

from perfpolicy.cli import program


def main() -> None:
    """Run the command line."""
    program(prog_name="perfpolicy")


if __name__ == "__main__":
    main()
