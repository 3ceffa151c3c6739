"""`python -m service`: serves every model under a models directory over HTTP and gRPC."""

import logging
import os
import sys

from service.errors import GraftError
from service.settings import read_settings
from service.supervisor import Supervisor


def main() -> int:
    """Runs the service; returns the exit code: 0 drained, 1 it could not start, 2 wrong settings."""
    settings = read_settings(sys.argv[1:], os.environ)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return Supervisor(settings).run()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 1


if __name__ == "__main__":
    sys.exit(main())
