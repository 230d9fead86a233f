"""mnist: every way in which a file can be wrong or missing, against a real server on loopback."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest
import torch

from dgm_course.data import Images, data_folder, fetch, mnist
from tests.needs import needs

# The package's name `mnist` is the function; the module's table is replaced by that of tiny files.
module = importlib.import_module("dgm_course.data.mnist")
importlib.import_module("tqdm.auto")  # now: a test gives up the right to read packages

TRAIN_IMAGES, TRAIN_LABELS = module.FILES["train"]
TEST_IMAGES, TEST_LABELS = module.FILES["test"]


def idx(shape: tuple[int, ...], body: bytes, *, magic: bytes = b"\0\0\x08") -> bytes:
    """An IDX file, written from its specification: magic, rank, sizes in big-endian, values."""
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


def pixels(n: int, seed: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return bytes(torch.randint(256, (n * 784,), generator=generator).tolist())


RAW = {
    TRAIN_IMAGES: idx((5, 28, 28), pixels(5, 0)),
    TRAIN_LABELS: idx((5,), bytes([5, 0, 4, 1, 9])),
    TEST_IMAGES: idx((3, 28, 28), pixels(3, 1)),
    TEST_LABELS: idx((3,), bytes([7, 2, 1])),
}
GOOD = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in RAW.items()}
HASHES = {name: hashlib.sha256(raw).hexdigest() for name, raw in RAW.items()}
FILE = f"{TRAIN_IMAGES}.gz"  # the one that goes wrong

Handler = BaseHTTPRequestHandler
Reply = bytes | Callable[[Handler], None]


class Site:
    """A server that replies to /one/<file> and /two/<file>, and keeps a list of its requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.replies: dict[str, list[Reply]] = {}  # the last one is repeated
        site = self

        class OneHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                replies = site.replies.get(self.path, [])
                if not replies:
                    self.send_error(404)
                    return
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                if callable(reply):
                    reply(self)
                else:
                    send(self, reply)

            def log_message(self, *_: object) -> None:
                """Keep the tests' output free of a line per request."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), OneHandler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def serve(self, files: dict[str, bytes], mirror: str = "one") -> None:
        self.replies |= {f"/{mirror}/{name}": [content] for name, content in files.items()}


def send(handler: Handler, content: bytes, *, claim: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if claim is None else claim))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The server, as the only mirror, with the table of the tiny files and an impatient client."""
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(module, "MIRRORS", (f"{site.address}one/",))
    monkeypatch.setattr(module, "SHA256", HASHES)
    monkeypatch.setattr(module, "RETRIES", 0)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # pooch waits between its attempts
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that does not exist yet."""
    folder = tmp_path / "some" / "cache"
    monkeypatch.setenv("DGM_COURSE_DATA_DIR", str(folder))
    return folder


def fill(folder: Path, **changed: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (GOOD | changed).items():
        (folder / name).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what works -----------------------------------------------------------------------------


def check_values(data: Images, split: str) -> None:
    images, labels = (RAW[name] for name in module.FILES[split])
    n = len(labels) - 8
    assert data.images.shape == (n, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert bytes(data.images.flatten().tolist()) == images[16:]
    assert bytes(data.labels.tolist()) == labels[8:]


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_cache_is_filled_with_the_two_files_of_the_split(
    site: Site, folder: Path, split: str
) -> None:
    site.serve(GOOD)
    check_values(mnist(split), split)
    names = [f"{name}.gz" for name in module.FILES[split]]
    assert contents(folder) == {name: GOOD[name] for name in names}
    assert site.requests == [f"/one/{name}" for name in names]
    check_values(mnist(split), split)
    assert len(site.requests) == 2  # the second call made none


def test_fetch_completes_the_cache_and_returns_its_paths(site: Site, folder: Path) -> None:
    site.serve(GOOD)
    mnist("test")
    paths = fetch()
    assert paths == [folder / name for name in GOOD]
    assert contents(folder) == GOOD
    assert len(site.requests) == 4
    assert fetch() == paths
    assert len(site.requests) == 4
    assert fetch(force=True) == paths
    assert len(site.requests) == 8


def test_a_full_cache_needs_no_network(site: Site, folder: Path) -> None:
    fill(folder)
    site.server.shutdown()  # replies to nothing, and would list a request
    check_values(mnist("train"), "train")
    check_values(mnist("test"), "test")
    fetch()
    assert site.requests == []
    assert contents(folder) == GOOD


def test_another_compression_of_the_same_bytes_is_the_same_file(site: Site, folder: Path) -> None:
    fill(folder, **{FILE: gzip.compress(RAW[TRAIN_IMAGES], 1) + gzip.compress(b"")})
    check_values(mnist(), "train")


def test_the_arrays_are_the_callers_own(site: Site, folder: Path) -> None:
    fill(folder)
    mnist().images.zero_()
    check_values(mnist(), "train")


def test_others_may_read_what_was_downloaded(site: Site, folder: Path) -> None:
    site.serve(GOOD)
    for path in fetch():
        assert path.stat().st_mode & 0o444 == 0o444


def test_a_download_shows_the_files_name_and_a_bar(
    site: Site, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.serve(GOOD)
    mnist()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"\r{FILE}: " in captured.err
    assert "B/s]" in captured.err


def test_where_the_files_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGM_COURSE_DATA_DIR", "~/lectures")
    assert data_folder() == Path.home() / "lectures"
    monkeypatch.setenv("DGM_COURSE_DATA_DIR", "")
    assert data_folder() == Path(pooch.os_cache("dgm_course"))
    monkeypatch.delenv("DGM_COURSE_DATA_DIR")
    assert data_folder() == Path(pooch.os_cache("dgm_course"))


def test_mnist_rejects_another_split() -> None:
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'valid'"):
        mnist("valid")


def test_the_table_lists_each_file_with_a_checksum() -> None:
    names = [name for names in module.FILES.values() for name in names]
    assert list(module.SHA256) == names
    assert all(len(bytes.fromhex(digest)) == 32 for digest in module.SHA256.values())
    assert all(mirror.startswith("https://") for mirror in module.MIRRORS)
    assert all(mirror.endswith("/") for mirror in module.MIRRORS)


# --- wrong files, from a mirror or in the cache ---------------------------------------------

BODY = pixels(5, 0)
OTHER = idx((5, 28, 28), pixels(5, 2))
FLIPPED = bytearray(GOOD[FILE])
FLIPPED[len(FLIPPED) // 2] ^= 0xFF
BAD_BLOCK = bytearray(GOOD[FILE])
BAD_BLOCK[10] = 0xFF  # right after gzip's header: a kind of block that does not exist
BAD_CRC = bytearray(GOOD[FILE])
BAD_CRC[-8] ^= 0xFF

# name -> the file's content, and what the message must hold: the expected and the found.
WRONG: dict[str, tuple[bytes, list[str]]] = {
    "truncated": (GOOD[FILE][:-600], ["truncated or corrupt: expected 3936 bytes, got 3"]),
    "truncated in its header": (GOOD[FILE][:12], ["truncated or corrupt: expected 16 bytes, got "]),
    "corrupt": (bytes(FLIPPED), ["truncated or corrupt: expected 3936 bytes, got "]),
    "corrupt from the start": (bytes(BAD_BLOCK), ["expected 16 bytes, got 0, then: Error -3"]),
    "wrong CRC": (bytes(BAD_CRC), ["expected 3936 bytes, got 3936, then: CRC check failed"]),
    "empty": (b"", ["must be a gzip file, starting with b'\\x1f\\x8b', got b''"]),
    "wrong checksum": (
        gzip.compress(OTHER),
        [f"SHA-256 {HASHES[TRAIN_IMAGES]}, got {hashlib.sha256(OTHER).hexdigest()}"],
    ),
    "web page": (
        b"\n<!DOCTYPE html><html><title>Log in to the campus network</title></html>",
        ["must be a gzip file, starting with b'\\x1f\\x8b', got a web page, b'\\n<!DOCTYPE"],
    ),
    "not compressed": (RAW[TRAIN_IMAGES], ["b'\\x1f\\x8b', got b'\\x00\\x00\\x08\\x03"]),
    "wrong magic number": (
        gzip.compress(idx((5, 28, 28), BODY, magic=b"PK\x08")),
        ["two zero bytes, got b'PK'"],
    ),
    "wrong dtype": (
        gzip.compress(idx((5, 28, 28), 4 * BODY, magic=b"\0\0\x0d")),
        ["dtype 8 (unsigned bytes), got 13"],
    ),
    "wrong rank": (gzip.compress(idx((5, 784), BODY)), ["rank 3, got 2"]),
    "a short header": (gzip.compress(RAW[TRAIN_IMAGES][:9]), ["start with 16 bytes, got 9"]),
    "fewer bytes": (gzip.compress(RAW[TRAIN_IMAGES][:-1]), ["hold 3936 bytes", "got 3935"]),
    "more bytes": (gzip.compress(RAW[TRAIN_IMAGES] + b"\0"), ["hold 3936 bytes", "got 3937 or mo"]),
    "a bomb": (
        gzip.compress(RAW[TRAIN_IMAGES] + bytes(2**26), 1),
        ["hold 3936 bytes", "got 3937 or more"],
    ),
    "a bomb with an honest header": (
        gzip.compress(idx((2**31, 2**31, 2**31), bytes(2**26)), 1),
        ["claim at most 47040000 bytes", "got the shape (2147483648, 2147483648, 2147483648)"],
    ),
}
wrong_files = pytest.mark.parametrize("case", WRONG)


def check_message(message: str, parts: list[str]) -> None:
    assert TRAIN_IMAGES in message
    for part in parts:
        assert part in message


@wrong_files
def test_a_wrong_download_leaves_nothing_behind(site: Site, folder: Path, case: str) -> None:
    content, parts = WRONG[case]
    site.serve(GOOD | {FILE: content})
    with pytest.raises(ConnectionError) as error:
        mnist()
    check_message(str(error.value), [*parts, f"{site.address}one/{FILE}", str(folder)])
    assert contents(folder) == {}


@wrong_files
def test_a_wrong_download_keeps_the_old_file(site: Site, folder: Path, case: str) -> None:
    content, parts = WRONG[case]
    fill(folder)
    site.serve(GOOD | {FILE: content})
    with pytest.raises(ConnectionError) as error:
        fetch(force=True)
    check_message(str(error.value), parts)
    assert contents(folder) == GOOD
    check_values(mnist(), "train")


@wrong_files
def test_a_wrong_file_in_the_cache_is_named_and_kept(site: Site, folder: Path, case: str) -> None:
    content, parts = WRONG[case]
    fill(folder, **{FILE: content})
    site.serve(GOOD)
    for call in (mnist, fetch):
        with pytest.raises(
            ValueError, match=r"delete .*, or replace it with .*force=True"
        ) as error:
            call()
        check_message(str(error.value), [*parts, str(folder / FILE)])
    assert contents(folder) == GOOD | {FILE: content}
    assert site.requests == []
    fetch(force=True)
    assert contents(folder) == GOOD


@pytest.mark.parametrize("case", ["a bomb", "a bomb with an honest header"])
def test_a_bomb_does_not_fill_the_memory(site: Site, folder: Path, case: str) -> None:
    fill(folder, **{FILE: WRONG[case][0]})
    tracemalloc.start()
    with pytest.raises(ValueError, match=TRAIN_IMAGES):
        mnist()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22  # the bomb holds 64 MiB


def test_as_many_labels_as_images(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = idx((4,), bytes(4))
    monkeypatch.setitem(module.SHA256, TRAIN_LABELS, hashlib.sha256(raw).hexdigest())
    site.serve(GOOD | {f"{TRAIN_LABELS}.gz": gzip.compress(raw)})
    with pytest.raises(ValueError, match="as many images as labels, got 5 images and 4 labels"):
        mnist()


# --- a mirror that fails ---------------------------------------------------------------------


def hang_up(handler: Handler) -> None:
    """Half of the file that was announced."""
    send(handler, GOOD[FILE][:2000], claim=len(GOOD[FILE]))


def overloaded(handler: Handler) -> None:
    handler.send_error(503)


FAILURES: dict[str, tuple[Reply | None, str]] = {
    "404": (None, "404 Client Error"),
    "503": (overloaded, "503 Server Error"),
    "connection lost": (hang_up, "2000 bytes read"),
}


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("full", [False, True], ids=["empty cache", "full cache"])
def test_a_failing_mirror_is_reported_and_the_cache_kept(
    site: Site, folder: Path, case: str, full: bool
) -> None:
    reply, part = FAILURES[case]
    site.serve(GOOD)
    site.replies[f"/one/{FILE}"] = [] if reply is None else [reply]
    if full:
        fill(folder)
    with pytest.raises(ConnectionError) as error:
        fetch(force=True)
    check_message(str(error.value), [part, "digits()", "DGM_COURSE_DATA_DIR", str(folder)])
    assert contents(folder) == (GOOD if full else {})


def test_a_silent_mirror_is_given_up(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    done = threading.Event()

    def say_nothing(_: Handler) -> None:
        done.wait(60)

    site.replies[f"/one/{FILE}"] = [say_nothing]
    try:
        with pytest.raises(ConnectionError, match=r"timed out.*0\.2"):
            mnist()
    finally:
        done.set()


def test_without_a_network_the_message_says_what_can_be_done(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and not listening: a connection is refused
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        monkeypatch.setattr(module, "MIRRORS", (f"{address}one/", f"{address}two/"))
        with pytest.raises(ConnectionError) as error:
            mnist()
    mirrors = [f"{mirror}{FILE}: " for mirror in module.MIRRORS]
    check_message(str(error.value), [*mirrors, "refused", "digits()", "DGM_COURSE_DATA_DIR"])


def test_a_failed_attempt_is_repeated_and_the_next_mirror_tried(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 1)
    monkeypatch.setattr(module, "MIRRORS", (f"{site.address}one/", f"{site.address}two/"))
    labels = f"{TRAIN_LABELS}.gz"
    site.serve({FILE: WRONG["web page"][0]}, "one")
    site.replies[f"/two/{FILE}"] = [hang_up, GOOD[FILE]]
    site.replies[f"/one/{labels}"] = [WRONG["truncated"][0], GOOD[labels]]
    check_values(mnist(), "train")
    assert site.requests == [f"/{m}/{FILE}" for m in ("one", "one", "two", "two")] + [
        f"/one/{labels}",
        f"/one/{labels}",
    ]
    assert contents(folder) == {name: GOOD[name] for name in (FILE, labels)}


# --- a folder that cannot be written ----------------------------------------------------------


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere: give that up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """pytest's own folders are closed to other users; this one is open for reading."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.setenv("DGM_COURSE_DATA_DIR", name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@needs("permissions")
def test_a_read_only_folder_serves_what_it_has(site: Site, public_folder: Path) -> None:
    fill(public_folder)
    public_folder.chmod(0o555)
    with as_nobody():
        check_values(mnist(), "train")
        assert len(fetch()) == 4
    assert site.requests == []


@needs("permissions")
def test_a_read_only_folder_is_named(site: Site, public_folder: Path) -> None:
    site.serve(GOOD)
    public_folder.chmod(0o555)
    with (
        as_nobody(),
        pytest.raises(OSError, match=r"cannot write .*Permission denied") as error,
    ):
        mnist()
    check_message(str(error.value), [str(public_folder), "DGM_COURSE_DATA_DIR", "digits()"])
    assert contents(public_folder) == {}
    assert site.requests == []


def test_a_file_in_the_folders_place_is_named_and_kept(site: Site, folder: Path) -> None:
    site.serve(GOOD)
    folder.parent.mkdir()
    folder.write_text("notes")
    with pytest.raises(OSError, match=r"cannot write .*exists") as error:
        mnist()
    check_message(str(error.value), [str(folder), "DGM_COURSE_DATA_DIR"])
    assert folder.read_text() == "notes"


@pytest.mark.parametrize("step", ["tempfile.mkdtemp", "os.replace"])
def test_a_refusal_at_either_step_keeps_the_old_files(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    fill(folder, **{FILE: b"old"})
    site.serve(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(step, refuse)
        with pytest.raises(OSError, match=r"cannot write .*Permission denied") as error:
            fetch(force=True)
    check_message(str(error.value), [str(folder)])
    assert contents(folder) == GOOD | {FILE: b"old"}


# --- two at once -------------------------------------------------------------------------------

SECOND = """
import importlib, json, sys
module = importlib.import_module("dgm_course.data.mnist")
module.MIRRORS, module.SHA256, module.RETRIES = json.loads(sys.argv[1])
print(int(module.mnist().images.sum()))
"""


def test_two_processes_fill_the_cache_at_once(site: Site, folder: Path) -> None:
    """Each file is sent only when both have asked for it, so that both are writing it."""
    both = threading.Barrier(2)
    for name in GOOD:

        def reply(handler: Handler, content: bytes = GOOD[name]) -> None:
            both.wait(60)
            send(handler, content)

        site.replies[f"/one/{name}"] = [reply]
    arguments = json.dumps([module.MIRRORS, module.SHA256, 0])
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SECOND, arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(module.__file__).parents[2],
    ) as other:
        data = mnist()
        out, err = other.communicate(timeout=60)
    assert other.returncode == 0, err
    check_values(data, "train")
    assert int(out) == int(data.images.sum())
    assert len(site.requests) == 4
    assert contents(folder) == {f"{name}.gz": GOOD[f"{name}.gz"] for name in module.FILES["train"]}
