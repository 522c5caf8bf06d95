"""`python -m jensen`."""

from .cli.main import main

if __name__ == "__main__":
    main()
