"""`python -m nightprice`: the command line."""

if __name__ == "__main__":
    from pipeline.cli.commands import main

    main()
