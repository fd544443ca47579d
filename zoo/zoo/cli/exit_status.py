"""Exit statuses of the program, and the errors that lead to them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager

from zoo.cli.output import report
from zoo_core.errors import ZooError

__all__ = ["FAILED", "INTERRUPTED", "PIPE_CLOSED", "exit_on_error"]

FAILED = 2
INTERRUPTED = 130
"""128 and the number of the signal, as shells count; the same for the next."""
PIPE_CLOSED = 141


@contextmanager
def exit_on_error() -> Generator[None]:
    """Print an expected error as one line and end the program with its status.

    Raises:
        SystemExit: the block raised an expected error, or standard output cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(PIPE_CLOSED)
    except (ZooError, OSError) as error:
        if os.environ.get("ZOO_DEBUG"):
            traceback.print_exc()
        report(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
