"""How commands end: exit codes, and the line of an error."""

from __future__ import annotations

import sys

from anomalyclip_monai.exceptions import AnomalyCLIPError

EXIT_DONE, EXIT_CASE_FAILED, EXIT_NOT_STARTED = 0, 1, 2


def fail(error: AnomalyCLIPError, code: int) -> int:
    """Print the one line of an error; -> the exit code."""
    print(error, file=sys.stderr)
    return code
