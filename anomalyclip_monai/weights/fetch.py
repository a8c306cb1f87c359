"""Fetch a file over HTTP so that a cut connection costs nothing but time.

What has arrived is kept beside the target as ``<name>.part``, and the next attempt, in this run or a later one, asks
for the rest (RFC 9110, section 14.2) on the condition that the file has not changed meanwhile (section 13.1.5).
Proxies are those of the environment (``https_proxy``, ``no_proxy``).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from anomalyclip_monai import __version__
from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.text import printable
from anomalyclip_monai.weights.digests import matches
from anomalyclip_monai.weights.published import PublishedFile

Progress = Callable[[PublishedFile, int, int], None]
"""Called with the file, the bytes that are there and the bytes of the whole."""

MAX_BYTES = 16 * 2**30
"""Most bytes of a file whose size is not known."""

MAX_SAID = 120
"""Most characters of a server's own words that are shown."""

_CHUNK = 1 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that another attempt may not meet again."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        attempts: in a row that bring nothing, before giving up.
        pause: seconds before the second attempt, doubled for each one after it.
        timeout: seconds without a byte that count as a cut connection.
    """

    attempts: int = 5
    pause: float = 1.0
    timeout: float = 30.0


class NotServedError(WeightsError):
    """The server answers, and does not have the file."""


class _CutError(Exception):
    """The connection failed in a way that another attempt may not."""


def fetch(
    file: PublishedFile,
    target: Path,
    *,
    address: str | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> None:
    """Fetch a published file, going on where an earlier attempt was cut, and check that it is the published one.

    Args:
        file: what is expected.
        target: appears whole and checked, or not at all.
        address: of a mirror; by default the publisher's.
        progress: called as bytes arrive.
        patience: with a server that cuts or stalls.

    Raises:
        NotServedError: the server does not have it (``E_DOWNLOAD``).
        WeightsError: the server cannot be reached, keeps cutting, or sends other bytes or more of them
            (``E_DOWNLOAD``); there is no room for it or the folder cannot be written (``E_WRITE``).
    """
    address, patience = address or file.address, patience or Patience()
    part = _Part(target, address)
    barren = 0
    while True:
        before = part.size
        try:
            _transfer(file, part, progress or _ignore, patience.timeout)
            break
        except _CutError as error:
            barren = 0 if part.size > before else barren + 1
            if barren >= patience.attempts:
                what = f"the connection was cut at {part.size:,} of {file.size:,} bytes: {error}"
                raise WeightsError(
                    "E_DOWNLOAD", what, address, "run the command again, it goes on from there"
                ) from error
            time.sleep(patience.pause * 2 ** max(barren - 1, 0))
    if not matches(part.path, file):
        size = part.size
        part.discard()
        expected = f"sha256 {file.sha256}" if file.sha256 else f"blob {file.blob_id}"
        what = f"the {size:,} bytes that came are not the published file ({expected})"
        raise WeightsError("E_DOWNLOAD", what, address, "try another connection, or give a folder with --from")
    with _writing(target):
        part.path.replace(target)
    part.discard()


class _Part:
    """The bytes of a file that have arrived, with what tells whether the rest would still fit."""

    def __init__(self, target: Path, address: str) -> None:
        self.address = address
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.path, self._note):
                if not _is_own_file(path):
                    path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def open(self, *, anew: bool) -> BinaryIO:
        """Open for appending, or from the start."""
        return _open_own(self.path, anew=anew)

    @property
    def validator(self) -> str | None:
        """Strong entity tag or date of the version that the bytes are of; ``None`` if they cannot be continued."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return str(note["validator"]) if note["address"] == self.address else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, headers: http.client.HTTPMessage) -> None:
        tag = headers.get("ETag", "")
        validator = headers.get("Last-Modified") if tag.startswith("W/") or not tag else tag
        with _writing(self._note):
            if validator:
                with _open_own(self._note, anew=True) as note:
                    note.write(json.dumps({"address": self.address, "validator": validator}).encode())
            else:
                self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _is_own_file(path: Path) -> bool:
    """Whether nothing but a file that has no other name is there: to write to a link is to write elsewhere."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _open_own(path: Path, *, anew: bool) -> BinaryIO:
    """Open a file for writing, never through a symbolic link."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # each is unknown to some systems
    return os.fdopen(os.open(path, flags, 0o666), "wb" if anew else "ab")


def _transfer(file: PublishedFile, part: _Part, progress: Progress, timeout: float) -> None:
    """One request: append what comes to the part, or start it anew where the server says so."""
    headers = {"User-Agent": f"anomalyclip-monai/{__version__}", "Accept-Encoding": "identity"}
    if part.size and (validator := part.validator):
        headers |= {"Range": f"bytes={part.size}-", "If-Range": validator}
    with _open(file, urllib.request.Request(part.address, headers=headers), part, timeout) as response:
        continued = response.status == http.client.PARTIAL_CONTENT
        start = part.size if continued else 0
        total = _total(response.headers, start, part) if continued else _length(response.headers)
        limit = (file.size or MAX_BYTES) + _CHUNK  # a little more than belongs is told from the whole by its digest
        if total > limit:
            raise _too_long(file, part)
        _check_room(part.path, (total or file.size) - start)
        if not continued:
            part.note(response.headers)
        with _writing(part.path), part.open(anew=not continued) as sink:
            done = start
            progress(file, done, total or file.size)
            while chunk := _read(response):
                done += len(chunk)
                if done > limit:
                    raise _too_long(file, part)
                sink.write(chunk)
                progress(file, done, total or file.size)
        if total and done < total:
            raise _CutError("the server closed it")


def _too_long(file: PublishedFile, part: _Part) -> WeightsError:
    part.discard()
    what = f"the server sends more than the {file.size or MAX_BYTES:,} bytes of {file.name}"
    return WeightsError("E_DOWNLOAD", what, part.address, "try another connection, or give a folder with --from")


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses, and to nothing on this machine's disk or an FTP server."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """As the base class does, within the web."""
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(
                req.full_url, code, f"and names {newurl}, which is no web address", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """As the base class does; an address that cannot be taken apart does not keep the connection open."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """A new one each time, because that of ``urlopen`` keeps the proxies that it first met."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _WebOnly(),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def _open(
    file: PublishedFile, request: urllib.request.Request, part: _Part, timeout: float
) -> Iterator[http.client.HTTPResponse]:
    address, resumed = request.full_url, part.size > 0
    try:
        response = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing is left to send, or the part is of a longer file: the start tells.
            part.discard()
            raise _CutError("the server has another version") from error
        if error.code in _PASSING:
            raise _CutError(f"the server answers {error.code}") from error
        what = f"{file.name} is not served: the server answers {error.code} {_said(error.reason)}"
        raise NotServedError("E_DOWNLOAD", what, address, "check the address, or give a folder with --from") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if resumed or isinstance(reason, (TimeoutError, ConnectionResetError, http.client.HTTPException)):
            raise _CutError(_said(reason)) from error
        host = request.host
        if isinstance(reason, socket.gaierror):
            reason = "its name cannot be resolved"
        what = f"{host} cannot be reached: {_said(reason)}"
        raise WeightsError(
            "E_DOWNLOAD", what, address, "check connection and proxy, or give a folder with --from"
        ) from error
    except ValueError as error:  # of a redirect to what only looks like an address
        what = f"{file.name} is not served: the server answers with an address that is none"
        raise NotServedError("E_DOWNLOAD", what, address, "check the address, or give a folder with --from") from error
    with response:
        yield response


def _said(words: object) -> str:
    """What a server or a library says, on one line and no longer than :data:`MAX_SAID`."""
    text = printable(" ".join(str(words).split()))
    return text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]}..."


def _length(headers: http.client.HTTPMessage) -> int:
    """Content-Length in bytes, 0 where it is absent or no number."""
    found = re.fullmatch(r"[0-9]{1,18}", headers.get("Content-Length", "").strip())
    return int(found[0]) if found else 0


def _total(headers: http.client.HTTPMessage, start: int, part: _Part) -> int:
    """Bytes of the whole, from ``Content-Range: bytes 500-999/1000``."""
    found = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", headers.get("Content-Range", ""))
    if not found or int(found[1]) != start:
        part.discard()
        raise _CutError("the server sent another range than asked for")
    return int(found[2])


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(_said(error) or type(error).__name__) from error


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        what = f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        raise WeightsError("E_WRITE", what, path.parent, "make room, or set ANOMALYCLIP_HOME to another disk")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot write: {error.strerror or type(error).__name__}"
        raise WeightsError("E_WRITE", what, path, "set ANOMALYCLIP_HOME to a folder that you can write") from error


def _ignore(_file: PublishedFile, _done: int, _total: int) -> None:
    """No progress is shown."""
