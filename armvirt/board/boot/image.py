"""The arm64 Image of Linux (Documentation/arch/arm64/booting.rst): plain, compressed with gzip, or
in an EFI zboot image."""

from __future__ import annotations

import struct
import zlib

from armvirt.board.boot.model import Loaded, Ram, Segment
from armvirt.errors import ImageError
from armvirt.inputs import Input
from armvirt.printable import printable
from armvirt.records import NamedTuple
from armvirt.units import human_size

ALIGN = 2 << 20
_MAGIC, _MAGIC_AT = b"ARM\x64", 56
_GZIP = b"\x1f\x8b"
_HEADER_SIZE = 64
_FIELDS = struct.Struct("<QQQ")
# The text_offset of a kernel before v3.17. Its header has no image_size, and the text_offset in its
# header is not reliable.
_OLD_TEXT_OFFSET = 0x80000
_UNPACK_STEP = 1 << 20


class ImageHeader(NamedTuple):
    """Three fields of the header of an Image: the load offset in bytes, the size in memory in
    bytes, and the flags."""

    text_offset: int
    image_size: int
    flags: int


def recognise(head: bytes) -> bool:
    """Return True if ``head`` is the start of an Image, of a gzip file or of an EFI zboot image."""
    return _is_image(head) or head.startswith(_GZIP) or _is_zboot(head)


def _is_image(head: bytes | bytearray) -> bool:
    return head[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC and len(head) >= _HEADER_SIZE


def _is_zboot(head: bytes) -> bool:
    return head[:2] == b"MZ" and head[4:8] == b"zimg"


def load(source: Input, ram: Ram, load_addr: int | None = None) -> Loaded:
    """Load an Image at ``load_addr``, or at the default address if ``load_addr`` is None.
    ``load_addr`` has to be text_offset bytes above a 2 MiB boundary; text_offset is a field of the
    Image's header. ImageError if the Image cannot run."""
    data = _unpacked(source, ram)
    address, size = _place(source.path, data, len(data), ram, load_addr)
    return Loaded(source.path, "image", (Segment(address, data, size),), address, address + size)


def check(source: Input, ram: Ram, load_addr: int | None = None) -> None:
    """Check that `load` can load an Image, without reading the whole file: only the header is
    checked. ImageError for an Image that cannot run."""
    head = source.head()
    if _is_zboot(head):
        _payload(source, head)
    elif head.startswith(_GZIP):
        try:
            start = zlib.decompressobj(wbits=31).decompress(source.head(_UNPACK_STEP), _HEADER_SIZE)
        except zlib.error as error:
            raise ImageError(
                source.path, f"its gzip data is corrupt ({error})", "copy it again"
            ) from None
        if not _is_image(start):
            raise ImageError(
                source.path,
                "its gzip data holds no arm64 Image",
                "unpack it, and give what is inside",
            )
        _place(source.path, start, 0, ram, load_addr)
    else:
        _place(source.path, head, source.size, ram, load_addr)


def _place(path: str, data: bytes, size: int, ram: Ram, load_addr: int | None) -> tuple[int, int]:
    """Return the load address of an Image, and its size in memory in bytes. ``data`` is the start
    of the Image; ``size`` is the size of the Image in its file."""
    header = _header(path, data)
    size = max(header.image_size, size)
    address = _address(path, header, ram) if load_addr is None else load_addr
    if (address - header.text_offset) % ALIGN:
        wanted = f"a multiple of 2 MiB, plus {header.text_offset:#x}"
        raise ImageError(
            path, f"an Image cannot go to {address:#x}", f"--load-addr must be {wanted}"
        )
    if not ram.holds(address, address + size):
        raise ImageError(
            path, f"its {size} bytes at {address:#x} do not fit into {ram}", "use a larger --mem"
        )
    return address, size


def _address(path: str, header: ImageHeader, ram: Ram) -> int:
    """Return the default load address, RAM base + text_offset. If text_offset is below 4 KiB, 2 MiB
    are added, as in QEMU, so that the start of RAM stays free."""
    return ram.base + header.text_offset + (ALIGN if header.text_offset < 4096 else 0)


def _header(path: str, data: bytes) -> ImageHeader:
    text_offset, image_size, flags = _FIELDS.unpack_from(data, 8)
    if flags & 1:
        raise ImageError(
            path, "it is a big-endian kernel", "build it with CONFIG_CPU_LITTLE_ENDIAN"
        )
    return ImageHeader(text_offset if image_size else _OLD_TEXT_OFFSET, image_size, flags)


def _unpacked(source: Input, ram: Ram) -> bytes:
    """Read a file and return the plain Image: the data of gzip files and EFI zboot images is
    unpacked."""
    head = source.head()
    if _is_zboot(head):
        return _from_zboot(source, head, ram)
    if head.startswith(_GZIP):
        return _gunzip(source, 0, source.size, ram)
    if source.size > ram.size:
        raise ImageError(source.path, f"it ({human_size(source.size)}) is larger than RAM ({human_size(ram.size)})",
                         "use a larger --mem")  # fmt: skip
    return source.read_at(0, source.size)


def _from_zboot(source: Input, head: bytes, ram: Ram) -> bytes:
    """Return the plain Image that an EFI zboot image contains."""
    return _gunzip(source, *_payload(source, head), ram)


def _payload(source: Input, head: bytes) -> tuple[int, int]:
    """Return the offset and the size in bytes of the gzip data in an EFI zboot image (kernel:
    drivers/firmware/efi/libstub/zboot-header.S)."""
    if len(head) < _HEADER_SIZE:
        raise ImageError(
            source.path, "it is truncated within its EFI zboot header", "copy it again"
        )
    offset, size = struct.unpack_from("<II", head, 8)
    method = head[24:56].split(b"\0")[0].decode("ascii", "replace")
    if method != "gzip":
        problem = f"its kernel is compressed with {printable(method)!r}"
        raise ImageError(source.path, problem, "only gzip is supported here")
    if offset + size > source.size:
        raise ImageError(
            source.path,
            "it is truncated: its compressed kernel lies beyond its end",
            "copy it again",
        )
    return offset, size


def _gunzip(source: Input, offset: int, size: int, ram: Ram) -> bytes:
    """Unpack gzip data. ImageError if the unpacked data is larger than RAM: without this limit, a
    small file could unpack to any size."""
    unpacker = zlib.decompressobj(wbits=31)
    data, end = bytearray(), offset + size
    pending = b""
    try:
        while not unpacker.eof:
            if not pending:
                step = min(_UNPACK_STEP, end - offset)
                if not step:
                    raise ImageError(source.path, "its gzip data is truncated", "copy it again")
                pending, offset = source.read_at(offset, step), offset + step
            part = unpacker.decompress(pending, _UNPACK_STEP)
            pending = unpacker.unconsumed_tail
            data += part
            _check_unpacked(source.path, data[:_HEADER_SIZE], len(data), ram)
    except zlib.error as error:
        raise ImageError(
            source.path, f"its gzip data is corrupt ({error})", "copy it again"
        ) from None
    if not _is_image(data):
        raise ImageError(
            source.path, "its gzip data holds no arm64 Image", "unpack it, and give what is inside"
        )
    return bytes(data)


def _check_unpacked(path: str, first: bytes | bytearray, total: int, ram: Ram) -> None:
    if total >= _HEADER_SIZE and len(first) >= _HEADER_SIZE and not _is_image(first):
        raise ImageError(
            path, "its gzip data holds no arm64 Image", "unpack it, and give what is inside"
        )
    if total > ram.size:
        raise ImageError(
            path, f"it unpacks to more than RAM ({human_size(ram.size)})", "use a larger --mem"
        )
