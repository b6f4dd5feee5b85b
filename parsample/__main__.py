"""The command line, where it is started by `python -m parsample`."""

from parsample.cli.main import main

if __name__ == "__main__":
    main()
