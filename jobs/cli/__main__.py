"""``python -m jobs.cli`` is ``sedflow``."""

from jobs.cli.main import main

main()
