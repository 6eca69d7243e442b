"""`python -m mtlskit` is the `mtlskit` command."""

from mtlskit.cli.main import main

if __name__ == "__main__":
    main()
