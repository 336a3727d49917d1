"""Downloading one file of known size, going on where a try broke off."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TRIES = 4
TIMEOUT = 30.0  # seconds without an answer
_CHUNK = 1 << 16
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL = 206


@dataclass(frozen=True)
class Resume:
    """A pooch downloader that keeps ``<keep>`` between tries and between runs.

    Never writes more than ``size`` bytes; raises OSError where the site cannot be
    reached, serves a file of another size or breaks off ``TRIES`` times.
    """

    size: int
    keep: Path
    progress: Callable[[int], None]  # gets the bytes there are

    def __call__(self, url: str, output_file: "str | IO[bytes]", _: Any) -> None:
        if not url.startswith(("https://", "http://")):
            raise OSError(f"{url}: not http")
        self.keep.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(TRIES):
            try:
                self._go_on(url)
            except (OSError, HTTPException) as error:
                if attempt == TRIES - 1 or not _passing(error):
                    raise _plain(error) from error
            if self._done() == self.size:
                break
        else:
            raise OSError(f"broke off at {self._done()} of {self.size} bytes")
        os.replace(self.keep, str(output_file))

    def _done(self) -> int:
        return self.keep.stat().st_size if self.keep.exists() else 0

    def _go_on(self, url: str) -> None:
        done = self._done()
        if done >= self.size:
            self.keep.unlink()
            done = 0
        request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
        with _opened(request, self.keep) as answer:
            whole = answer.status != _PARTIAL
            self._check_size(answer, 0 if whole else done)
            with self.keep.open("wb" if whole else "ab") as file:
                self._copy(answer, file)

    def _check_size(self, answer: HTTPResponse, done: int) -> None:
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) + done != self.size:
            raise _OtherFileError(
                f"the site serves {int(length) + done} bytes, not {self.size}"
            )

    def _copy(self, answer: HTTPResponse, file: IO[bytes]) -> None:
        while chunk := answer.read(min(_CHUNK, self.size - file.tell() + 1)):
            if file.tell() + len(chunk) > self.size:
                raise _OtherFileError(f"the site serves more than {self.size} bytes")
            file.write(chunk)
            self.progress(file.tell())


class _OtherFileError(OSError):
    """The file is not the one that was pinned; another try cannot help."""


def _opened(request: Request, keep: Path) -> HTTPResponse:
    try:
        answer: HTTPResponse = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:
            keep.unlink(missing_ok=True)
        raise
    return answer


def _passing(error: Exception) -> bool:
    """Whether another try may help."""
    if isinstance(error, HTTPError):
        return error.code == _RANGE_NOT_SATISFIABLE or error.code >= 500
    return not isinstance(error, _OtherFileError)


def _plain(error: Exception) -> OSError:
    return OSError(str(error) or type(error).__name__)
