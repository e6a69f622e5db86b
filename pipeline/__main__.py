"""`python -m pipeline`: the command line where nothing is installed, as in a Ray job."""

from pipeline.cli.commands import main

if __name__ == "__main__":
    main()
