"""PNG with 16 bits a channel, in colour or with alpha, which Pillow reads as 8 bits.

The format is the PNG specification, third edition (W3C 2025): section 9 the filters, section 8 the interlacing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
COLOUR_TYPE = {channels: kind for kind, channels in CHANNELS.items()}
# Adam7: first row, first column, row step, column step of each pass.
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def is_deep(data: bytes) -> bool:
    """Whether ``data`` starts like a PNG of 16 bits a channel."""
    return len(data) >= 26 and data.startswith(SIGNATURE) and data[12:16] == b"IHDR" and data[24] == 16


def decode(data: bytes) -> tuple[NDArray[np.uint16], bytes | None]:
    """Decode a 16-bit PNG.

    Returns:
        ``[height, width, channels]``, 1 to 4 channels (grey, grey and alpha, RGB, RGBA), and the ICC profile if any.

    Raises:
        ValueError: the file is damaged or cut short.
    """
    width, height, _, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    compressed, profile, ended = [], None, False
    for name, content in _chunks(data):
        if name == b"IDAT":
            compressed.append(content)
        elif name == b"iCCP":
            profile = zlib.decompress(content[content.index(b"\0") + 2 :])
        elif name == b"IEND":
            ended = True
    if not ended or kind not in CHANNELS:
        raise ValueError("the PNG is cut short" if not ended else f"PNG colour type {kind} is not one of {CHANNELS}")
    channels = CHANNELS[kind]
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - top) // down), -(-(width - left) // across)) for top, left, down, across in passes]
    wanted = sum(rows * (1 + 2 * channels * columns) for rows, columns in sizes if rows > 0 and columns > 0)
    try:
        # The length is bounded, so that a small file cannot ask for more memory than its header announced.
        stream = zlib.decompressobj().decompress(b"".join(compressed), wanted)
    except zlib.error as error:
        raise ValueError(f"the PNG is damaged: {error}") from error
    if len(stream) < wanted:
        raise ValueError("the PNG is cut short")
    image = np.empty((height, width, channels), np.uint16)
    position = 0
    for (top, left, down, across), (rows, columns) in zip(passes, sizes, strict=True):
        if rows > 0 and columns > 0:
            length = rows * (1 + 2 * channels * columns)
            lines = np.frombuffer(stream, np.uint8, length, position).reshape(rows, -1)
            position += length
            image[top::down, left::across] = _unfilter(lines[:, 0], lines[:, 1:].reshape(rows, columns, 2 * channels))
    return image, profile


def encode(image: NDArray[np.uint16], profile: bytes | None = None) -> bytes:
    """Encode ``[height, width, channels]``, 1 to 4 channels (grey, grey and alpha, RGB, RGBA), as a 16-bit PNG."""
    height, width, channels = image.shape
    lines = np.ascontiguousarray(image, ">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPE[channels], 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    if profile:
        chunks.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    chunks += [_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        content = data[position + 8 : position + 8 + length]
        check = data[position + 8 + length : position + 12 + length]
        if len(check) < 4:
            raise ValueError("the PNG is cut short")
        if struct.unpack(">I", check)[0] != zlib.crc32(name + content):
            raise ValueError("the PNG is damaged: a checksum does not agree")
        yield name, content
        position += 12 + length


def _unfilter(kinds: NDArray[np.uint8], lines: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Undo the filters of ``lines [rows, columns, bytes]``; row ``r`` was filtered by ``kinds[r]``.

    A byte needs its left, upper and upper-left neighbours, all on earlier anti-diagonals: the image is rebuilt one
    anti-diagonal at a time, all its rows at once.
    """
    if kinds.max() > 4:
        raise ValueError(f"the PNG is damaged: no filter has number {kinds.max()}")
    rows, columns, size = lines.shape
    plain = np.empty((rows, columns, size), np.uint8)
    # Of the last two anti-diagonals, the pixel of row r stands at r + 1; zeros stand for what lies outside.
    previous = np.zeros((rows + 1, size), np.int16)
    before = np.zeros((rows + 1, size), np.int16)
    for number in range(rows + columns - 1):
        first, last = max(0, number - columns + 1), min(rows, number + 1)
        here = np.arange(first, last)
        left, up, corner = previous[first + 1 : last + 1], previous[first:last], before[first:last]
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        guess = np.choose(kinds[here, None], [np.zeros_like(left), left, up, (left + up) >> 1, paeth])
        value = (lines[here, number - here] + guess) & 255
        plain[here, number - here] = value
        before, previous = previous, np.zeros_like(previous)
        previous[first + 1 : last + 1] = value
    return plain.reshape(rows, columns, size // 2, 2).view(">u2")[..., 0].astype(np.uint16)
