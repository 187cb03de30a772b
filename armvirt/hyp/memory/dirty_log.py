"""Dirty logging of one memory slot (virt/kvm/kvm_main.c: kvm_get_dirty_log_protect,
kvm_clear_dirty_log_protect).

The bitmap has one bit per page; bit 0 of byte 0 is the slot's first page, and the size of the
bitmap is a multiple of 64 bits. This module only records the dirty pages; `armvirt.hyp.memory.mmu`
write-protects pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntFlag

from armvirt.arch.translation import PAGE_SHIFT
from armvirt.errors import KvmError

WORD_PAGES = 64


class ManualProtect(IntFlag):
    """The argument of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2."""

    NONE = 0
    ENABLE = 1 << 0
    INITIALLY_SET = 1 << 1

    @classmethod
    def checked(cls, value: int) -> ManualProtect:
        """Check the flags. KvmError EINVAL for unknown flags, and for INITIALLY_SET without
        ENABLE."""
        allowed = cls.ENABLE | cls.INITIALLY_SET if value & cls.ENABLE else cls.ENABLE
        if value & ~int(allowed):
            raise KvmError(
                "EINVAL", f"KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: flags {value:#x} are not possible"
            )
        return cls(value)


class DirtyBitmap:
    """The dirty pages of a slot of ``pages`` pages. With ``full``, all pages are dirty at first
    (INITIALLY_SET)."""

    __slots__ = ("_bits", "pages")

    def __init__(self, pages: int, *, full: bool = False) -> None:
        self.pages = pages
        self._bits = bytearray(bitmap_size(pages))
        if full:
            self._bits[: pages >> 3] = b"\xff" * (pages >> 3)
            self.mark(pages & ~7, pages)

    def mark(self, first: int, last: int) -> None:
        """Mark pages [first, last) of the slot as dirty."""
        for page in range(first, last):
            self._bits[page >> 3] |= 1 << (page & 7)

    def mark_bytes(self, offset: int, size: int) -> None:
        """Mark the pages of the bytes [offset, offset + size) of the slot as dirty."""
        if size:
            self.mark(offset >> PAGE_SHIFT, (offset + size - 1 >> PAGE_SHIFT) + 1)

    def bits(self) -> bytes:
        """The bitmap as KVM_GET_DIRTY_LOG returns it."""
        return bytes(self._bits)

    def dirty(self) -> Iterator[int]:
        """The numbers of the dirty pages."""
        return pages_of(self._bits)

    def clear(self, pages: Iterable[int]) -> list[int]:
        """Mark ``pages`` as clean. Return the pages among them that were dirty."""
        cleared = []
        for page in pages:
            if self._bits[page >> 3] >> (page & 7) & 1:
                self._bits[page >> 3] &= ~(1 << (page & 7))
                cleared.append(page)
        return cleared

    def chosen(self, first_page: int, num_pages: int, bitmap: bytes) -> list[int]:
        """The numbers of the pages that KVM_CLEAR_DIRTY_LOG selects. Bit 0 of ``bitmap`` is the
        page ``first_page``; the range has ``num_pages`` pages.

        KvmError EINVAL for a range beyond the slot. KvmError EINVAL if ``num_pages`` is not a
        multiple of 64 and the range ends before the end of the slot. KvmError EFAULT if the bitmap
        is too short.
        """
        left = self.pages - first_page
        if (
            first_page > self.pages
            or num_pages > left
            or (num_pages < left and num_pages % WORD_PAGES)
        ):
            raise KvmError(
                "EINVAL",
                f"pages {first_page} and {num_pages} more are no range of {self.pages} pages",
            )
        if len(bitmap) * 8 < num_pages:
            raise KvmError("EFAULT", f"a bitmap of {len(bitmap)} bytes for {num_pages} pages")
        return [first_page + page for page in pages_of(bitmap) if page < num_pages]


def bitmap_size(pages: int) -> int:
    """The size in bytes of the bitmap for ``pages`` pages: whole 64-bit words."""
    return -(-pages // WORD_PAGES) * (WORD_PAGES // 8)


def pages_of(bitmap: bytes | bytearray) -> Iterator[int]:
    """The numbers of the bits of ``bitmap`` that are set."""
    for at, byte in enumerate(bitmap):
        if byte:
            yield from (at * 8 + bit for bit in range(8) if byte >> bit & 1)
