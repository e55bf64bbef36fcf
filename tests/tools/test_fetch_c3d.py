"""The download of the C3D weights, from a server on this machine that behaves as well or as badly as told."""

import contextlib
import errno
import hashlib
import os
import pathlib
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from femur3d.errors import InputError
from tools.c3d import fetch as fetch_c3d

TOOL = pathlib.Path(fetch_c3d.__file__)
BODY = random.Random(0).randbytes(700_000)
SIZE, SHA256 = len(BODY), hashlib.sha256(BODY).hexdigest()
PIECE = fetch_c3d.PIECE_BYTES  # more than two of them are in BODY


def requested(request):
    """Where a request's Range begins, None without one."""
    said = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    return int(said[1]) if said else None


def answer(request, status, body, declared=None, **headers):
    """Sends a whole answer; `declared` is a Content-Length other than the true one."""
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if declared is None else declared))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def whole(request):
    answer(request, 200, BODY)


def ranged(request, count=SIZE):
    """The rest from where Range says, as a good server answers; no more than `count` bytes before it hangs up."""
    start = requested(request) or 0
    if not start:
        return answer(request, 200, BODY[:count], SIZE)
    place = f"bytes {start}-{SIZE - 1}/{SIZE}"
    return answer(request, 206, BODY[start : start + count], SIZE - start, Content_Range=place)


def breaks_after(count):
    return lambda request: ranged(request, count)


def resets_once(part, count):
    """Tears the connection down, as a crash does, with 1000 bytes under way and `count` in the .part."""

    def answers(request):
        ranged(request, count + 1000)
        until(lambda: part.exists() and part.stat().st_size == count)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()

    return answers


def until(condition):
    """Waits for a condition, five seconds at most."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)


def says(status, body=b"", **headers):
    return lambda request: answer(request, status, body, **headers)


class Host:
    """A server that gives its answers one after the other, the last one again and again; notes every Range."""

    def __init__(self, *answers):
        self.starts = []
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(request):  # noqa: N805
                self.starts.append(requested(request))
                with contextlib.suppress(ConnectionError):  # the client may hang up first
                    (left.pop(0) if len(left) > 1 else left[0])(request)

            def do_CONNECT(request):  # noqa: N805
                request.do_GET()

            def log_message(request, *_):  # noqa: N805
                pass

            def finish(request):  # noqa: N805
                with contextlib.suppress(OSError, ValueError):  # ... or we did
                    super().finish()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.address}/weights?dl=1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def host():
    """Starts a server with the given answers."""
    started = []

    def start(*answers):
        started.append(Host(*answers))
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(autouse=True)
def _no_waits_and_no_proxies(monkeypatch):
    monkeypatch.setattr(fetch_c3d, "WAITS_S", (0.0, 0.0, 0.0))
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "weights"


@pytest.fixture
def part(path):
    """FILE.part, in a folder that exists."""
    path.parent.mkdir()
    return path.with_name("weights.part")


def fetch(url, path):
    fetch_c3d.fetch(url, path, SIZE, SHA256, progress=False)


def failure(url, path):
    """The first of the two lines with which a download fails; the second is the manual way; nothing is at the path."""
    with pytest.raises(InputError) as error:
        fetch(url, path)
    what, manual = str(error.value).splitlines()
    assert all(word in manual for word in (fetch_c3d.AUTHORS_URL, f"`sha256sum {path}` must print {SHA256}"))
    assert error.value.exit_code == 3
    assert not path.exists()
    return what


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# What goes well


def test_constants_are_those_of_the_published_file():
    assert fetch_c3d.SIZE == 319_966_293
    assert fetch_c3d.SHA256 == "de192a0b05918bd1ca49b2c2f783f3c62b243df4013b2a73067862f869783d21"
    assert fetch_c3d.AUTHORS_URL.startswith("https://www.dropbox.com/s/vr8ckp0pxgbldhs/")


def test_a_plain_download_leaves_the_file_and_no_part(host, path, capsys):
    server = host(whole)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [None]
    assert not path.with_name("weights.part").exists()
    assert "700,000 bytes, SHA-256 is right" in capsys.readouterr().out


def test_progress_bar_counts_all_bytes_those_of_before_included(host, path, part, capsys):
    part.write_bytes(BODY[:PIECE])
    fetch_c3d.fetch(host(ranged).url, path, SIZE, SHA256, progress=True)
    assert re.search(r"100%.*700k/700k", capsys.readouterr().err)


def test_a_redirect_is_followed_and_keeps_the_range(host, path, part):
    part.write_bytes(BODY[:10])
    target = host(ranged)
    fetch(host(says(302, Location=target.url)).url, path)
    assert path.read_bytes() == BODY
    assert target.starts == [10]


def test_a_broken_download_goes_on_where_it_broke(host, path):
    server = host(breaks_after(PIECE + 1000), ranged)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [None, PIECE + 1000]


def test_a_connection_that_is_reset_goes_on_after_the_last_whole_piece(host, path, part, capsys):
    server = host(resets_once(part, PIECE), ranged)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [None, PIECE]
    assert "reset by peer" in capsys.readouterr().err


def test_a_part_of_an_earlier_run_is_gone_on_with(host, path, part):
    part.write_bytes(BODY[:123_456])
    server = host(ranged)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [123_456]


def test_tries_are_counted_afresh_when_one_brought_something(host, path):
    server = host(breaks_after(100_000))
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [None, *range(100_000, SIZE, 100_000)]  # seven tries; four in a row are allowed


def test_a_server_that_ignores_range_sends_all_again(host, path, part):
    part.write_bytes(b"x" * 1000)  # would spoil the file if it stayed
    server = host(whole)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [1000]


def test_an_answer_without_length_is_taken_to_its_end(host, path):
    def unmeasured(request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(BODY)

    fetch(host(unmeasured).url, path)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "refusal",
    [
        says(416),
        says(206, BODY, Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}"),
        says(206, BODY[1000:], Content_Range=f"bytes 1000-{SIZE}/{SIZE + 1}"),
        says(206, BODY[1000:]),
    ],
    ids=["416", "other start", "other total", "no Content-Range"],
)
def test_a_range_that_is_not_honoured_is_started_again(host, path, part, refusal):
    part.write_bytes(b"x" * 1000)
    server = host(refusal, whole)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [1000, None]


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_server_is_asked_again(host, path, status):
    server = host(says(status), whole)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert len(server.starts) == 2


def test_a_complete_part_needs_no_request(host, path, part):
    part.write_bytes(BODY)
    server = host(whole)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == []


def test_the_right_file_is_left_alone(host, path, capsys):
    path.parent.mkdir()
    path.write_bytes(BODY)
    before, server = path.stat(), host(whole)
    fetch(server.url, path)
    assert "is there already" in capsys.readouterr().out
    assert server.starts == []
    assert path.stat() == before
    assert [p.name for p in path.parent.iterdir()] == ["weights"]


# What stands in the way on this machine


@pytest.mark.parametrize(
    ("content", "why"), [(b"short", "has 5 bytes, expected 700,000"), (BODY[::-1], f"expected {SHA256}")]
)
def test_another_file_at_the_path_is_reported_and_kept(host, path, content, why):
    path.parent.mkdir()
    path.write_bytes(content)
    server = host(whole)
    with pytest.raises(InputError) as error:
        fetch(server.url, path)
    what, manual = str(error.value).splitlines()
    assert what.startswith(f"{path}: is there already")
    assert why in what
    assert "sha256sum" in manual
    assert path.read_bytes() == content
    assert server.starts == []


def test_a_folder_at_the_path_is_reported(host, path):
    path.mkdir(parents=True)
    with pytest.raises(InputError, match="is not a file"):
        fetch(host(whole).url, path)


def test_of_two_downloads_at_once_the_second_gives_way(host, path):
    asked, go_on = threading.Event(), threading.Event()

    def slowly(request):
        asked.set()
        go_on.wait(5)
        whole(request)

    server = host(slowly)
    first = threading.Thread(target=fetch, args=(server.url, path))
    first.start()
    assert asked.wait(5)
    with pytest.raises(InputError, match="another download to it is under way"):
        fetch(server.url, path)
    go_on.set()
    first.join(5)
    assert path.read_bytes() == BODY
    assert len(server.starts) == 1


def test_a_disk_that_is_too_full_is_noticed_before_any_request(host, path, part, monkeypatch):
    part.write_bytes(BODY[:1000])
    free = SIZE - 1001
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=free))
    server = host(ranged)
    assert "699,000 bytes to come, 698,999 bytes free" in failure(server.url, path)
    assert server.starts == []
    free += 1  # just enough: what is in the .part needs no room
    fetch(server.url, path)
    assert path.read_bytes() == BODY


class FullDisk:
    """A file that takes no byte beyond a limit."""

    def __init__(self, file, limit):
        self.file, self.limit = file, limit

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def truncate(self, size):
        self.file.truncate(size)

    def write(self, data):
        if self.file.tell() + len(data) > self.limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.write(data)


def test_a_disk_that_fills_up_keeps_the_part_to_go_on_with(host, path, part, monkeypatch):
    server, really = host(ranged), pathlib.Path.open
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", lambda self, mode: FullDisk(really(self, mode), PIECE + 10))
        what = failure(server.url, path)
    assert what.startswith(f"{part}: No space left on device after {PIECE:,} bytes")
    assert part.read_bytes() == BODY[:PIECE]
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [None, PIECE]


# What a server or the network does wrong


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (404, "no such file (HTTP 404 Not Found)"),
        (403, "a proxy on the way, refused (HTTP 403 Forbidden)"),
        (407, "the proxy refused (HTTP 407 Proxy Authentication Required)"),
        (410, "the server refused (HTTP 410 Gone)"),
        (204, "HTTP 204"),
    ],
)
def test_a_refusal_ends_at_once(host, path, status, why):
    server = host(says(status))
    what = failure(server.url, path)
    assert what.startswith(server.url)
    assert why in what
    assert len(server.starts) == 1


def test_a_server_that_stays_busy_is_given_up(host, path):
    server = host(says(503))
    assert "HTTP 503 Service Unavailable), 4 times in a row" in failure(server.url, path)
    assert len(server.starts) == 4


@pytest.mark.parametrize(
    "page",
    [
        says(200, BODY, Content_Type="text/html; charset=utf-8"),
        says(200, b"\n<!DOCTYPE html>".ljust(SIZE)),
        says(200, b"<HTML><body>Log in".ljust(SIZE)),
        says(206, BODY[5:], Content_Type="Text/HTML", Content_Range=f"bytes 5-{SIZE - 1}/{SIZE}"),
    ],
    ids=["type", "doctype", "html", "partial"],
)
def test_a_web_page_is_not_taken_for_the_file(host, path, part, page):
    part.write_bytes(BODY[:5])
    assert "web page" in failure(host(page).url, path)
    assert part.read_bytes() == BODY[:5]  # a login page of the hotel's network spoils nothing


def test_a_wrong_hash_removes_the_part(host, path, part):
    what = failure(host(says(200, BODY[::-1])).url, path)
    assert hashlib.sha256(BODY[::-1]).hexdigest() in what
    assert not part.exists()


def test_a_spoilt_part_is_found_out_and_the_next_run_starts_afresh(host, path, part):
    part.write_bytes(b"x" * 1000)
    server = host(ranged)
    assert "SHA-256" in failure(server.url, path)
    fetch(server.url, path)
    assert path.read_bytes() == BODY
    assert server.starts == [1000, None]


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_wrong_size_is_noticed_before_the_download(host, path, part, size):
    what = failure(host(says(200, bytes(size))).url, path)
    assert f"offers {size:,} bytes, expected 700,000" in what
    assert not part.exists()


def test_a_part_that_is_too_long_is_removed(host, path, part):
    part.write_bytes(BODY + b"x")
    assert "has 700,001 bytes, expected 700,000" in failure(host(whole).url, path)
    assert not part.exists()


def test_a_stream_without_end_is_cut_off(host, path, part):
    sent = []

    def endless(request):
        request.send_response(200)
        request.end_headers()
        for _ in range(10_000):  # 1 GB
            request.wfile.write(BODY[:100_000])
            sent.append(100_000)

    what = failure(host(endless).url, path)
    size = int(re.search(r"has ([\d,]+) bytes, expected 700,000", what)[1].replace(",", ""))
    assert SIZE < size <= SIZE + PIECE
    assert not part.exists()
    assert sum(sent) < 50_000_000  # what the buffers of the network took


def test_breaks_without_end_are_given_up_and_the_part_kept(host, path, part):
    server = host(breaks_after(1000), breaks_after(0))
    what = failure(server.url, path)
    assert "it ended after 1,000 of 700,000 bytes), 4 times in a row (1,000 bytes are kept: run again" in what
    assert part.read_bytes() == BODY[:1000]
    assert server.starts == [None, 1000, 1000, 1000]


def test_a_refused_connection(path, capsys):
    assert "Connection refused" in failure(f"http://127.0.0.1:{free_port()}/weights", path)
    assert capsys.readouterr().err.count("trying again") == 3


def test_no_network(path, monkeypatch):
    def no_dns(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_dns)
    assert "is the network up? (Temporary failure in name resolution)" in failure("https://weights.invalid/f", path)


@pytest.mark.parametrize("headers_first", [True, False])
def test_a_server_that_falls_silent_is_given_up_after_the_stated_time(host, path, monkeypatch, headers_first):
    over = threading.Event()

    def silent(request):
        if headers_first:
            answer(request, 200, b"", SIZE)
        over.wait(5)

    monkeypatch.setattr(fetch_c3d, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(fetch_c3d, "WAITS_S", ())
    assert "no answer for 0.1 s" in failure(host(silent).url, path)
    over.set()


@pytest.mark.parametrize(("scheme", "status"), [("http", 407), ("https", 407), ("https", 403)])
def test_a_proxy_that_refuses(host, path, monkeypatch, scheme, status):
    server = host(says(status))
    monkeypatch.setenv(f"{scheme}_proxy", server.address)
    what = failure(f"{scheme}://weights.invalid/f", path)
    assert "the proxy refused" in what
    assert str(status) in what
    assert len(server.starts) == 1


def test_https_redirects_to_https_only(tmp_path):
    wanted = fetch_c3d._Wanted("https://a.invalid/f", tmp_path / "f", tmp_path / "f.part", SIZE, SHA256)
    handler, request = fetch_c3d._HttpsStaysHttps(wanted), urllib.request.Request(wanted.url)
    followed = handler.redirect_request(request, None, 302, "Found", {}, "https://b.invalid/f")
    assert followed.full_url == "https://b.invalid/f"
    with pytest.raises(InputError, match=r"a\.invalid/f: redirects to http://b\.invalid/f, which is not https"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://b.invalid/f")


def test_a_certificate_that_is_not_valid_ends_at_once(path, monkeypatch):
    tries = []

    def forged(*_, **__):
        tries.append(1)
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed"))

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", forged)
    assert "certificate is not valid" in failure("https://weights.invalid/f", path)
    assert len(tries) == 1


# The command


def command(*flags):
    return [sys.executable, str(TOOL.parents[1] / "fetch_c3d.py"), *flags]


def test_the_licence_is_shown_before_the_first_request_and_a_failure_is_two_lines(host, path):
    read = threading.Event()

    def waits_for_the_reader(request):
        answer(request, 200 if read.wait(5) else 404, b"too short")

    server = host(waits_for_the_reader)
    flags = ("-o", str(path), "--url", server.url)
    with subprocess.Popen(command(*flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        shown = "".join(process.stdout.readline() for _ in range(3))
        read.set()  # the server answers from here on only
        _, errors = process.communicate(timeout=10)
    assert "CC BY-NC 3.0" in shown
    assert "no commercial use" in shown
    assert f"Source: {server.url}" in shown
    assert process.returncode == 3
    what, manual = errors.splitlines()
    assert "offers 9 bytes, expected 319,966,293" in what
    assert f"`sha256sum {path}` must print {fetch_c3d.SHA256}" in manual


@pytest.mark.parametrize("flags", [["--url", "file:///etc/passwd"], ["stray"]])
def test_wrong_flags_end_in_code_2(tmp_path, flags):
    done = subprocess.run(
        command("-o", str(tmp_path / "f"), *flags), capture_output=True, encoding="utf-8", check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert flags[-1] in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
