"""`python -m pipeline`: the command line where nothing is installed, as in a Ray job."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
