"""``python -m pinfeather``."""

from pinfeather.cli import main

main()
