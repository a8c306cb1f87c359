"""Locks on files, which go with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def lock_file(path: Path, *, shared: bool = False) -> int | None:
    """Open a file and lock it, by ``flock``: -> descriptor, to be closed; None where another process has it.

    Where the file system has no locks, a warning says so, and the file counts as locked.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            _flock(descriptor, shared=shared)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logger.warning("the file system of the output has no locks: do not start a second run over it")
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)  # who had it has removed it


def share(descriptor: int) -> None:
    """Make an exclusive lock a shared one; not at one stroke, another process may come between."""
    with contextlib.suppress(OSError):
        _flock(descriptor, shared=True)


def unshare(descriptor: int) -> None:
    """Make a shared lock an exclusive one.

    Raises:
        OSError: others share it.
    """
    _flock(descriptor, shared=False)


def _flock(descriptor: int, *, shared: bool) -> None:
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
