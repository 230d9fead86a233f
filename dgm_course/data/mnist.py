"""MNIST, fetched once and checked each time.

The cache holds the four files as they are published, compressed, and nothing else:
``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``, and two that start with ``t10k``.
A folder with these files, read-only or not, serves as it is through ``DGM_COURSE_DATA_DIR``.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import tempfile
import zlib
from pathlib import Path

import torch
from torch import Tensor

from dgm_course.data.images import Images, check_split

# Tried in this order, each 1 + RETRIES times.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
RETRIES = 2
TIMEOUT = 30  # seconds without an answer

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

# Of the decompressed bytes: the same data can be compressed in many ways.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
LARGEST = 60_000 * 28 * 28  # bytes after the header, in the largest of the files

ADVICE = (
    "digits() needs no download; DGM_COURSE_DATA_DIR can name a folder with MNIST's four .gz files"
)


def mnist(split: str = "train") -> Images:
    """60,000 training or 10,000 test images of handwritten digits, 28 × 28 pixels.

    What is missing is downloaded into `data_folder`, 11 MB in all; a full cache makes no request.
    Every call checks the files again. Binarise the images with `binarise` and levels=256.

    Source: LeCun, Bottou, Bengio & Haffner 1998, section III, https://doi.org/10.1109/5.726791.

    Args:
        split: "train" or "test".

    Shapes: images ``(N, 1, 28, 28)``, uint8, 0 … 255, 255 is ink; labels ``(N,)``, int64.

    Raises:
        ValueError: for a file in the cache that is not the published one; it is left as it is.
        ConnectionError: when a file is missing and no mirror gave the right one.
        OSError: when a file is missing and its folder cannot be written.
    """
    check_split(split)
    paths = [data_folder() / f"{name}.gz" for name in FILES[split]]
    for path in paths:
        if not path.exists():
            _download(path)
    images, labels = (_read_cached(path) for path in paths)
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[0]} and {paths[1].name} must hold as many images as labels, "
            f"got {len(images)} images and {len(labels)} labels"
        )
    return Images(images[:, None], labels.long())


def data_folder() -> Path:
    """Where the files are kept: ``DGM_COURSE_DATA_DIR`` if set, else the user's cache folder."""
    if folder := os.environ.get("DGM_COURSE_DATA_DIR"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("dgm_course"))


def fetch(*, force: bool = False) -> list[Path]:
    """The paths of the four files, once each is there and has passed its check; raises as `mnist`.

    Args:
        force: download all four again. A file is replaced only by one that passed its check.
    """
    paths = [data_folder() / f"{name}.gz" for names in FILES.values() for name in names]
    for path in paths:
        if force or not path.exists():
            _download(path)
        else:
            _read_cached(path)
    return paths


def _download(path: Path) -> None:
    """Put the file there whole, from the first mirror whose copy passes the check."""
    import pooch
    from tqdm.auto import tqdm

    def download_and_check(url: str, target: str, _: object) -> None:
        # pooch puts in the true total, but only into a bar that is true, as one of total 0 is not.
        with tqdm(desc=path.name, total=1, unit="B", unit_scale=True, leave=False) as bar:
            pooch.HTTPDownloader(bar, chunk_size=2**16, timeout=TIMEOUT)(url, target, None)
        _read(Path(target), path.stem)  # on a ValueError pooch deletes the target and retries

    failures = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the last step is a rename: another process sees a whole
        # file or none, and the second of two that download at once replaces equal bytes.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as scratch:
            for mirror in MIRRORS:
                source = pooch.create(
                    scratch, mirror, registry={path.name: None}, retry_if_failed=RETRIES
                )
                try:
                    file = Path(source.fetch(path.name, downloader=download_and_check))
                except (ValueError, OSError) as error:  # all that requests raises is an OSError
                    failures.append(f"  {mirror}{path.name}: {error}")
                    continue
                file.chmod(0o644)  # pooch makes it private; other users may share the folder
                os.replace(file, path)
                return
    except OSError as error:
        raise OSError(f"cannot write {path.name} to {path.parent}: {error}; {ADVICE}") from error
    raise ConnectionError("\n".join([f"could not download {path}:", *failures, ADVICE]))


def _read_cached(path: Path) -> Tensor:
    try:
        return _read(path, path.stem)
    except ValueError as error:
        raise ValueError(
            f"{error}; delete {path}, or replace it with dgm_course.data.fetch(force=True)"
        ) from error


def _read(path: Path, name: str) -> Tensor:
    """The array in the gzipped IDX file, after a check against its header and its checksum.

    Never decompresses more than the header claims, nor more than `LARGEST`.
    """
    with path.open("rb") as raw:
        start = raw.read(64)
    if not start.startswith(b"\x1f\x8b"):
        page = "a web page, " if start.lstrip().lower().startswith((b"<!doc", b"<html")) else ""
        raise ValueError(
            f"{name}.gz must be a gzip file, starting with b'\\x1f\\x8b', got {page}{start[:20]!r}"
        )
    rank = 3 if "idx3" in name else 1
    data, size = bytearray(), 4 + 4 * rank  # size: of the header, then of the whole
    try:
        with gzip.open(path) as file:
            data += file.read(size)
            shape = _check_header(data, rank, name)
            size += math.prod(shape)
            # One byte more than claimed is enough to see that there are too many.
            while len(data) <= size and (chunk := file.read1(min(2**20, size + 1 - len(data)))):
                data += chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{name} is truncated or corrupt: expected {size} bytes, got {len(data)}, then: {error}"
        ) from error
    if len(data) != size:
        got = f"{len(data)} or more" if len(data) > size else len(data)
        raise ValueError(f"{name} must hold {size} bytes, as its header claims, got {got}")
    if (digest := hashlib.sha256(data).hexdigest()) != SHA256[name]:
        raise ValueError(f"{name} must have the SHA-256 {SHA256[name]}, got {digest}")
    return torch.frombuffer(data, dtype=torch.uint8, offset=4 + 4 * rank).reshape(shape)


def _check_header(header: bytearray, rank: int, name: str) -> tuple[int, ...]:
    """The shape that the header claims: two zero bytes, the dtype, the rank, then the sizes."""
    if len(header) < 4 + 4 * rank:
        raise ValueError(f"{name} must start with {4 + 4 * rank} bytes, got {len(header)}")
    for what, expected, found in (
        ("the magic number's two zero bytes", b"\0\0", bytes(header[:2])),
        ("dtype 8 (unsigned bytes)", 8, header[2]),
        (f"rank {rank}", rank, header[3]),
    ):
        if found != expected:
            raise ValueError(f"{name} must be an IDX file with {what}, got {found!r}")
    shape = struct.unpack(f">{rank}I", header[4:])
    if math.prod(shape) > LARGEST:
        raise ValueError(f"{name} must claim at most {LARGEST} bytes, got the shape {shape}")
    return shape
