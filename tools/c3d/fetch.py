"""Downloads the C3D (Sports-1M) weights that the encoder of the transfer experiment starts from.

    python tools/fetch_c3d.py -o data/conv3d_deepnetA_sport1m_iter_1900000

320 MB from where their authors published them, checked by size and SHA-256. What has come so far lies in FILE.part: a
download that broke goes on from there when the command is given again. A file that is there already stays as it is.
Their licence is CC BY-NC 3.0: no commercial use.

Written here and not left to pooch: pooch 1.9 verifies a file but begins each download anew, and 320 MB over a poor line
need to go on where they broke.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse, responses
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.errors import InputError

AUTHORS_URL = "https://www.dropbox.com/s/vr8ckp0pxgbldhs/conv3d_deepnetA_sport1m_iter_1900000?dl=1"
DEFAULT_OUTPUT = "data/conv3d_deepnetA_sport1m_iter_1900000"
SIZE = 319_966_293
SHA256 = "de192a0b05918bd1ca49b2c2f783f3c62b243df4013b2a73067862f869783d21"
NOTICE = """\
C3D weights (Sports-1M), Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015.
Licence: CC BY-NC 3.0, https://creativecommons.org/licenses/by-nc/3.0/: name the authors, no commercial use."""

TIMEOUT_S = 30.0  # without a byte from the server
WAITS_S = (1.0, 4.0, 15.0)  # before the second, third and fourth try; counted afresh when a try brought something
PIECE_BYTES = 1 << 18
REFUSALS = {403: "the server, or a proxy on the way, refused", 404: "no such file", 407: "the proxy refused"}
WEB_PAGE = re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE)


class _Wanted(NamedTuple):
    """The file to get: from where, to where, and how it is recognised."""

    url: str
    path: Path
    part: Path  # where the bytes gather until they are all there
    size: int
    sha256: str

    def had(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def error(self, what: str, subject: Path | None = None) -> InputError:
        """What happened to the URL, or to a file, on one line; on the second the manual way."""
        target = shlex.quote(str(self.path))
        manual = f"By hand: get {AUTHORS_URL} and save it as {target}; `sha256sum {target}` must print {self.sha256}."
        return InputError(f"{subject or self.url}: {' '.join(what.split())}\n{manual}")


class _HttpsStaysHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything that can be read or changed on the way."""

    def __init__(self, wanted: _Wanted) -> None:
        self._wanted = wanted

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request to the new place. Raises InputError where that is not https and the old one is."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise self._wanted.error(f"redirects to {newurl}, which is not https: not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: str | os.PathLike[str], size: int, sha256: str, progress: bool) -> None:
    """Downloads a file, or goes on with a download that broke, checks it and renames it into place.

    Args:
        url: http or https address.
        path: the file to make; its bytes gather in PATH.part, and PATH.lock keeps a second download out.
        size, sha256: length in bytes and lower-case hexadecimal digest that it must have.
        progress: whether a progress bar is shown.

    Raises:
        InputError: the file cannot be had, or something else is at `path`; two lines, the second the manual way.
        OSError: a folder or file cannot be created, read or renamed.
    """
    wanted = _Wanted(url, Path(path), Path(f"{Path(path)}.part"), size, sha256)
    if _is_there(wanted):
        return
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(f"{wanted.path}.lock", timeout=0):
            if not _is_there(wanted):  # a download that ended just now
                _download(wanted, progress)
                _put_in_place(wanted)
    except filelock.Timeout as error:
        raise InputError(f"{path}: another download to it is under way.\nWait for its end or change -o.") from error


def _is_there(wanted: _Wanted) -> bool:
    """Whether the right file is at the path. Raises InputError where something else is."""
    if not wanted.path.exists():
        return False
    if wrong := _difference(wanted.path, wanted):
        raise wanted.error(f"is there already and {wrong}; not overwritten: move it or change -o.", wanted.path)
    print(f"{wanted.path}: is there already, size and SHA-256 are right", flush=True)
    return True


def _difference(path: Path, wanted: _Wanted) -> str | None:
    """What is wrong with a file: its kind, its size or, when that is right, its SHA-256."""
    if not path.is_file():
        return "is not a file"
    if path.stat().st_size != wanted.size:
        return f"has {path.stat().st_size:,} bytes, expected {wanted.size:,}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == wanted.sha256 else f"has SHA-256 {found}, expected {wanted.sha256}"


def _download(wanted: _Wanted, progress: bool) -> None:
    """Fills the .part to the wanted size or more; tries again after a break. Raises InputError."""
    missing, free = wanted.size - wanted.had(), shutil.disk_usage(wanted.path.parent).free
    if missing > free:
        raise wanted.error(f"the disk is too full: {missing:,} bytes to come, {free:,} bytes free.", wanted.path)
    waits, most = iter(WAITS_S), wanted.had()
    while wanted.had() < wanted.size:
        try:
            _try_once(wanted, progress)
        except (OSError, HTTPException) as error:
            trouble = _passing_trouble(wanted, error)
            if wanted.had() > most:
                waits, most = iter(WAITS_S), wanted.had()
            wait = next(waits, None)
            if wait is None:
                kept = f"{wanted.had():,} bytes are kept: run again to go on"
                raise wanted.error(f"{trouble}, {len(WAITS_S) + 1} times in a row ({kept}).") from error
            print(f"{trouble}; trying again in {wait:g} s", file=sys.stderr, flush=True)
            time.sleep(wait)


def _try_once(wanted: _Wanted, progress: bool) -> None:
    """One request, its answer appended to the .part. Raises InputError, or what a broken connection raises."""
    with _open(wanted, wanted.had()) as response:
        at = wanted.had() if response.status == 206 else 0  # a server may ignore Range and send the whole file
        if "text/html" in response.headers.get("Content-Type", "").lower():
            raise wanted.error("answers with a web page (text/html) instead of the file.")
        if response.status == 200 and response.length not in (None, wanted.size):
            raise wanted.error(f"another file: offers {response.length:,} bytes, expected {wanted.size:,}.")
        with tqdm(total=wanted.size, initial=at, unit="B", unit_scale=True, disable=not progress) as bar:
            while at <= wanted.size and (piece := response.read(PIECE_BYTES)):  # up to one piece too many
                if not at and WEB_PAGE.match(piece):
                    raise wanted.error("answers with a web page (it begins as HTML does) instead of the file.")
                _write(wanted, at, piece)
                bar.update(len(piece))
                at += len(piece)
    if at < wanted.size:
        raise ConnectionError(f"it ended after {at:,} of {wanted.size:,} bytes")


def _open(wanted: _Wanted, start: int) -> HTTPResponse:
    """The answer to a request from byte `start` on: status 200 (all of it) or 206 (from there on)."""
    headers = {"User-Agent": "femur3d", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(wanted.url, headers=headers)
    try:
        response = urllib.request.build_opener(_HttpsStaysHttps(wanted)).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the server holds no such byte
            return _open(wanted, 0)
        raise
    said = response.headers.get("Content-Range", "")
    goes_on = said.startswith(f"bytes {start}-") and said.endswith((f"/{wanted.size}", "/*"))
    if response.status == 200 or (response.status == 206 and goes_on):
        return response
    response.close()
    if start:
        return _open(wanted, 0)
    raise wanted.error(f"not an answer to a request for a file (HTTP {response.status}).")


def _passing_trouble(wanted: _Wanted, error: Exception) -> str:
    """What went wrong with a connection, where another try may mend it. Raises InputError where none will."""
    if isinstance(error, urllib.error.HTTPError):
        said = f"{REFUSALS.get(error.code, 'the server refused')} (HTTP {error.code} {responses.get(error.code, '')})"
        if error.code >= 500 or error.code in (408, 429):
            return said
        raise wanted.error(f"{said}.") from error
    cause = getattr(error, "reason", error)
    if "Tunnel connection failed" in str(cause):
        raise wanted.error(f"the proxy refused ({cause}).") from error
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise wanted.error(f"the server's certificate is not valid ({cause}).") from error
    if isinstance(cause, socket.gaierror):
        return f"the host was not found, is the network up? ({cause.strerror})"
    return f"no answer for {TIMEOUT_S:g} s" if isinstance(cause, TimeoutError) else f"the connection failed ({cause})"


def _write(wanted: _Wanted, at: int, piece: bytes) -> None:
    """Makes a piece the end of the .part. Raises InputError where the disk does not take it; the .part stays."""
    try:
        with wanted.part.open("ab") as file:
            file.truncate(at)
            file.write(piece)
    except OSError as error:
        what = f"{error.strerror} after {wanted.had():,} bytes, which are kept: run again to go on."
        raise wanted.error(what, wanted.part) from error


def _put_in_place(wanted: _Wanted) -> None:
    """Checks the .part and renames it. Raises InputError and removes it where it is not the wanted file."""
    if wrong := _difference(wanted.part, wanted):
        wanted.part.unlink()
        raise wanted.error(f"what came {wrong}; removed: run again to start afresh.")
    with wanted.part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(wanted.part, wanted.path)
    print(f"{wanted.path}: {wanted.size:,} bytes, SHA-256 is right", flush=True)


def define_flags() -> None:
    """Defines the flags; not on import, because femur3d's entry points have an --output too."""
    flags.DEFINE_string("output", DEFAULT_OUTPUT, "File to make; what has come so far is in FILE.part.", short_name="o")
    flags.DEFINE_string("url", AUTHORS_URL, "Where to download from; the file must be the same.")
    pattern = re.compile(r"https?://[\w.-]+(:\d+)?(/[!-~]*)?", re.ASCII)
    flags.register_validator("url", pattern.fullmatch, "Expected an address that begins with https:// or http://.")


def main(argv: Sequence[str]) -> int:
    """Shows the licence, then downloads."""
    cli.no_arguments(argv)
    print(f"{NOTICE}\nSource: {flags.FLAGS.url}", flush=True)
    fetch(flags.FLAGS.url, flags.FLAGS.output, SIZE, SHA256, progress=True)
    return 0


if __name__ == "__main__":
    define_flags()
    cli.run(main)
