"""`python -m tutelage` is the `tutelage` command (torchrun needs a module to start)."""

from tutelage.cli.main import main

if __name__ == "__main__":
    main()
