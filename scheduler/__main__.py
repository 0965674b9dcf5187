"""`python -m scheduler` is the command line."""

from .cli import main

main()
