"""Compression: chosen by the name of a file that is written, recognised by its first bytes when it is read."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import BinaryIO, cast

from seeknal.errors import MissingDriverError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MOST_WINDOW_LOG = 27
"""How much memory a zstd file may ask for: 128 MiB, the limit of the zstd command."""


@contextmanager
def packing(name: str, sink: BinaryIO) -> Iterator[BinaryIO]:
    """Yield what compresses into ``sink`` as the ending of ``name`` says; the same bytes for the same content.

    Raises:
        MissingDriverError: It ends in ``.zst`` and the extra ``zstd`` is not installed.
    """
    ending = PurePath(name).suffix.lower()
    if ending == ".gz":
        # Neither a name nor a time in its header: both would make equal exports differ.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=sink, mtime=0) as packed:
            yield cast("BinaryIO", packed)
    elif ending == ".zst":
        with _zstd_writer(sink) as packed_zstd:
            yield packed_zstd
    else:
        yield sink


def unpacked(source: BinaryIO) -> BinaryIO:
    """Return a reader of what a file holds, from its beginning; closing it leaves the file open.

    Raises:
        MissingDriverError: It is compressed by zstd and the extra ``zstd`` is not installed.
    """
    source.seek(0)
    magic = source.read(len(ZSTD_MAGIC))
    source.seek(0)
    if magic.startswith(GZIP_MAGIC):
        return cast("BinaryIO", gzip.GzipFile(fileobj=source, mode="rb"))
    return cast("BinaryIO", io.BufferedReader(_zstd_reader(source))) if magic == ZSTD_MAGIC else source


def unpacking_errors() -> tuple[type[Exception], ...]:
    """Return what a reader raises over damaged bytes."""
    known: list[type[Exception]] = [gzip.BadGzipFile, EOFError, zlib.error]
    if "zstandard" in sys.modules:
        known.append(sys.modules["zstandard"].ZstdError)
    if "compression.zstd" in sys.modules:
        known.append(sys.modules["compression.zstd"].ZstdError)
    return tuple(known)


if sys.version_info >= (3, 14):
    from compression import zstd

    def _zstd_writer(sink: BinaryIO) -> BinaryIO:
        options = {zstd.CompressionParameter.checksum_flag: 1}
        return cast("BinaryIO", zstd.ZstdFile(sink, "wb", options=options))

    def _zstd_reader(source: BinaryIO) -> io.RawIOBase:
        options = {zstd.DecompressionParameter.window_log_max: MOST_WINDOW_LOG}
        return cast("io.RawIOBase", zstd.ZstdFile(source, "rb", options=options))

else:

    def _zstd_writer(sink: BinaryIO) -> BinaryIO:
        _require_zstandard()
        import zstandard

        packer = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=False)
        return cast("BinaryIO", packer.stream_writer(sink, closefd=False))

    def _zstd_reader(source: BinaryIO) -> io.RawIOBase:
        _require_zstandard()
        import zstandard

        unpacker = zstandard.ZstdDecompressor(max_window_size=1 << MOST_WINDOW_LOG)
        reader = unpacker.stream_reader(source, read_across_frames=True, closefd=False)
        return cast("io.RawIOBase", reader)

    def _require_zstandard() -> None:
        try:
            import zstandard  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise MissingDriverError(
                "zstd needs the package zstandard, which is not installed",
                hint="Install it with `pip install 'seeknal-state[zstd]'`, or use a name that ends in .gz.",
            ) from error
