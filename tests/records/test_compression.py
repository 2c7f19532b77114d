"""Compression: what comes back is what went in, and nothing else; hostile bytes take no memory."""

from __future__ import annotations

import base64
import contextlib
import importlib
import importlib.util
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from common import run_python

import diskreplay
from diskreplay import ArgumentError, DamageError, NotInstalledError
from diskreplay.records.compression import Compression, codec_named

PACKAGES = {"lz4": "lz4", "zstd": "zstandard"}


def is_installed(codec: str) -> bool:
    return importlib.util.find_spec(PACKAGES[codec]) is not None


needs = {
    codec: pytest.mark.skipif(not is_installed(codec), reason=f"{package} is not installed")
    for codec, package in PACKAGES.items()
}
COMPRESSING = [pytest.param(codec, marks=needs[codec]) for codec in PACKAGES]
ALL = [None, *COMPRESSING]


def frame(seed: int) -> bytes:
    """A frame with a few rectangles, as a game draws it."""
    rng = np.random.default_rng(seed)
    pixels = np.full((84, 84), rng.integers(256), np.uint8)
    for _ in range(5):
        (top, left), (height, width) = rng.integers(0, 80, 2), rng.integers(1, 30, 2)
        pixels[top : top + height, left : left + width] = rng.integers(256)
    return pixels.tobytes()


def contents() -> list[bytes]:
    noise = np.random.default_rng(0).bytes(7056)
    return [b"", b"a", b"ab" * 50, noise, noise[:13], bytes(7056), bytes(10**6), frame(1)]


def refusal(compression: Compression, stored: Any, nbytes: int) -> str:
    with pytest.raises(DamageError) as caught:
        compression.decompress(stored, nbytes)
    return str(caught.value)


@pytest.mark.parametrize("codec", ALL)
def test_what_comes_back_is_what_went_in(codec: str | None) -> None:
    compression = codec_named(codec)
    for raw in contents():
        stored = compression.compress(raw)
        assert bytes(compression.decompress(stored, len(raw))) == raw
        again = compression.compress(memoryview(bytearray(raw)))
        assert bytes(again) == bytes(stored)
        assert bytes(compression.decompress(memoryview(bytes(stored)), len(raw))) == raw


@pytest.mark.parametrize("codec", COMPRESSING)
def test_frames_become_small(codec: str) -> None:
    assert len(codec_named(codec).compress(frame(1))) < 7056 / 10


@needs["lz4"]
def test_a_block_is_what_other_programs_read() -> None:
    block = importlib.import_module("lz4.block")
    stored = codec_named("lz4").compress(frame(2))
    assert block.decompress(stored, uncompressed_size=7056) == frame(2)


@needs["zstd"]
def test_a_frame_is_what_other_programs_read() -> None:
    zstandard = importlib.import_module("zstandard")
    stored = codec_named("zstd").compress(frame(2))
    assert zstandard.decompress(stored) == frame(2)
    assert zstandard.get_frame_parameters(stored).content_size == 7056


@pytest.mark.parametrize("codec", ALL)
def test_any_other_size_is_damage(codec: str | None) -> None:
    compression = codec_named(codec)
    for raw in contents():
        stored = compression.compress(raw)
        for nbytes in {len(raw) - 1, len(raw) + 1, 0, 2 * len(raw), 7} - {len(raw), -1}:
            said = refusal(compression, stored, nbytes)
            assert f"{nbytes:,} bytes compressed with {codec}" in said or codec is None
    assert refusal(codec_named(None), b"1234", 3000) == "it has 4 bytes (expected 3,000)"


@pytest.mark.parametrize("codec", COMPRESSING)
def test_each_truncated_value_is_damage(codec: str) -> None:
    compression = codec_named(codec)
    stored = bytes(compression.compress(frame(3)))
    for length in range(len(stored)):
        refusal(compression, stored[:length], 7056)
    refusal(compression, stored + b"\0", 7056)
    refusal(compression, 2 * stored, 7056)
    assert compression.decompress(stored, 7056) == frame(3)  # the context works on


@pytest.mark.parametrize("codec", COMPRESSING)
def test_garbage_is_damage_or_has_the_size(codec: str) -> None:
    compression = codec_named(codec)
    rng = np.random.default_rng(4)
    stored = bytearray(compression.compress(frame(4)))
    for _ in range(3000):
        flipped = stored.copy()
        for place in rng.integers(0, len(stored), rng.integers(1, 4)):
            flipped[place] ^= 1 << rng.integers(8)
        for hostile in (flipped, rng.bytes(rng.integers(0, 200)), stored[:5] + rng.bytes(50)):
            with contextlib.suppress(DamageError):
                assert len(compression.decompress(hostile, 7056)) == 7056


@needs["zstd"]
def test_a_frame_that_does_not_say_its_size_is_damage() -> None:
    zstandard = importlib.import_module("zstandard")
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(frame(5))
    assert "does not say" in refusal(codec_named("zstd"), silent, 7056)


# Memory


def zstd_frame(*blocks: bytes, window: int = 0, size: int | None = None) -> bytes:
    """A frame of Zstandard, by RFC 8878: a size of 8 bytes, or none."""
    descriptor = 0b1100_0000 if size is not None else 0
    head = struct.pack("<IBB", 0xFD2FB528, descriptor, window << 3)
    return head + (b"" if size is None else struct.pack("<Q", size)) + b"".join(blocks)


def repeated(n: int, *, last: bool) -> bytes:
    """A block of n equal bytes."""
    return struct.pack("<I", n << 3 | 1 << 1 | last)[:3] + b"x"


def bombs(codec: str) -> list[tuple[bytes, int]]:
    """What may not take memory, and the size that is expected."""
    if codec == "lz4":
        match = b"\x1fx\x01\0" + b"\xff" * (8 << 20) + b"\0"  # 2 GB of one byte
        return [(match, 7056), (match[:1000], 1 << 30), (b"\x10x", 1 << 40)]
    gigabytes = [repeated(1 << 17, last=False)] * (1 << 14) + [repeated(1, last=True)]
    wide = 17  # a window of 128 MiB
    return [
        (zstd_frame(*gigabytes, window=wide), 7056),
        (zstd_frame(*gigabytes, window=wide, size=7056), 7056),
        (zstd_frame(*gigabytes, window=wide, size=2 << 30), 7056),
        (zstd_frame(repeated(100, last=False), window=wide, size=7056), 7056),
        (zstd_frame(repeated(100, last=False), window=wide), 7056),
        (zstd_frame(repeated(100, last=True), window=wide, size=1 << 40), 7056),
        (zstd_frame(repeated(100, last=True), window=wide, size=1 << 40), 1 << 40),
    ]


LIMITED = """
import base64, resource, sys
from diskreplay import DamageError
from diskreplay.records.compression import codec_named

compression = codec_named(sys.argv[1])
compression.decompress(compression.compress(bytes(7056)), 7056)
hostile = [(base64.b64decode(line), int(n)) for line, n in map(str.split, sys.stdin)]
address_space = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = address_space + (32 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for stored, nbytes in hostile:
    try:
        compression.decompress(stored, nbytes)
    except DamageError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("codec", COMPRESSING)
def test_hostile_bytes_take_no_memory(codec: str) -> None:
    given = bombs(codec)
    lines = [f"{base64.b64encode(stored).decode()} {nbytes}\n" for stored, nbytes in given]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, codec],
        input="".join(lines), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(given), result.stdout


# Threads


@pytest.mark.parametrize("codec", COMPRESSING)
def test_threads_share_a_compression(codec: str) -> None:
    compression = codec_named(codec)
    assert codec_named(codec) is compression

    def work(seed: int) -> None:
        for number in range(50):
            raw = frame(1000 * seed + number) * 50  # so long that threads are in it together
            assert compression.decompress(compression.compress(raw), len(raw)) == raw

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


# What is not there


@pytest.mark.parametrize("name", ["gzip", "", "LZ4", 4, ["lz4"], np.array(["lz4", "zstd"])])
def test_an_unknown_name_is_refused_with_the_known_ones(name: Any) -> None:
    with pytest.raises(ArgumentError, match="codec must be one of lz4, zstd"):
        codec_named(name)


@pytest.mark.parametrize("codec", PACKAGES)
def test_without_the_package_the_error_says_how_to_install_it(codec: str) -> None:
    code = f"""
        import sys
        sys.modules[{PACKAGES[codec]!r}] = None
        from diskreplay.records.compression import codec_named
        codec_named({codec!r})
    """
    said = run_python(code, check=False).stderr.splitlines()[-1]
    assert said == (
        f"diskreplay.errors.NotInstalledError: codec {codec} needs the package {PACKAGES[codec]}, "
        f"which is not installed: pip install 'diskreplay[{codec}]'"
    )
    assert issubclass(NotInstalledError, ImportError)
    assert issubclass(NotInstalledError, diskreplay.DiskReplayError)


@pytest.mark.parametrize("codec", PACKAGES)
def test_a_package_that_does_not_work_is_told(
    codec: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{PACKAGES[codec]}.py").write_text("raise ImportError('libnothing.so is missing')")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from diskreplay.records.compression import codec_named
        codec_named({codec!r})
    """
    said = run_python(code, check=False).stderr.splitlines()[-1]
    assert "which cannot be imported (libnothing.so is missing): pip install" in said
