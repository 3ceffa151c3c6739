"""`python -m service`: serves every model under a models directory over HTTP and gRPC."""

import os
import sys

from service.errors import GraftError
from service.log import configure_log
from service.settings import read_settings
from service.supervisor import Supervisor


def main() -> int:
    """Runs the service; returns the exit code: 0 drained, 1 it could not start, 2 wrong settings."""
    settings = read_settings(sys.argv[1:], os.environ)
    configure_log(settings.log_level, settings.log_format)
    try:
        return Supervisor(settings).run()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 1


if __name__ == "__main__":
    sys.exit(main())
