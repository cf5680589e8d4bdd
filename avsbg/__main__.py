"""The command line, as `python -m avsbg`."""

from avsbg.cli import main

main()
