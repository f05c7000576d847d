"""`python -m streams` is the command `marquee`."""

from streams.commands.cli import main

if __name__ == "__main__":
    main()
