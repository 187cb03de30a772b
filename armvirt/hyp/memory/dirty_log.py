"""Dirty logging of one memory slot (virt/kvm/kvm_main.c: kvm_get_dirty_log_protect,
kvm_clear_dirty_log_protect).

The bitmap has one bit per page. Bit 0 of byte 0 is the slot's first page. The size of the bitmap is
a multiple of 64 bits. This module only records the dirty pages; `armvirt.hyp.memory.mmu`
write-protects pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntFlag

from armvirt.arch.translation import PAGE_SHIFT
from armvirt.errors import KvmError

WORD_PAGES = 64


class ManualProtect(IntFlag):
    """The flags that user space passes to KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2."""

    NONE = 0
    ENABLE = 1 << 0
    INITIALLY_SET = 1 << 1

    @classmethod
    def checked(cls, value: int) -> ManualProtect:
        """Check the flags in ``value``, and return the flags. KvmError EINVAL if a flag does not
        exist, or if INITIALLY_SET is set and ENABLE is not set."""
        allowed = cls.ENABLE | cls.INITIALLY_SET if value & cls.ENABLE else cls.ENABLE
        if value & ~int(allowed):
            raise KvmError(
                "EINVAL", f"KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: flags {value:#x} are not possible"
            )
        return cls(value)


class DirtyBitmap:
    """The dirty pages of a memory slot that has ``pages`` pages. If ``full`` is True, all pages are
    dirty at first (INITIALLY_SET); if False, no page is dirty."""

    __slots__ = ("_bits", "pages")

    def __init__(self, pages: int, *, full: bool = False) -> None:
        self.pages = pages
        self._bits = bytearray(bitmap_size(pages))
        if full:
            self._bits[: pages >> 3] = b"\xff" * (pages >> 3)
            self.mark(pages & ~7, pages)

    def mark(self, first: int, last: int) -> None:
        """Mark the pages ``first`` to ``last`` - 1 of the slot as dirty."""
        for page in range(first, last):
            self._bits[page >> 3] |= 1 << (page & 7)

    def mark_bytes(self, offset: int, size: int) -> None:
        """Mark the pages of ``size`` bytes as dirty. ``offset`` is the number of bytes from the
        start of the slot to the first of these bytes."""
        if size:
            self.mark(offset >> PAGE_SHIFT, (offset + size - 1 >> PAGE_SHIFT) + 1)

    def bits(self) -> bytes:
        """The bitmap as KVM_GET_DIRTY_LOG returns it."""
        return bytes(self._bits)

    def dirty(self) -> Iterator[int]:
        """The page numbers of the dirty pages. Page 0 is the first page of the slot."""
        return pages_of(self._bits)

    def clear(self, pages: Iterable[int]) -> list[int]:
        """Mark the pages with these page numbers as clean. Return the page numbers of the pages
        that were dirty before."""
        cleared = []
        for page in pages:
            if self._bits[page >> 3] >> (page & 7) & 1:
                self._bits[page >> 3] &= ~(1 << (page & 7))
                cleared.append(page)
        return cleared

    def chosen(self, first_page: int, num_pages: int, bitmap: bytes) -> list[int]:
        """The page numbers of the pages that KVM_CLEAR_DIRTY_LOG selects with ``bitmap``.
        ``first_page`` is the page number that belongs to bit 0 of ``bitmap``. ``num_pages`` is the
        number of pages in the range.

        KvmError EINVAL if the range ends beyond the slot. KvmError EINVAL if ``num_pages`` is not a
        multiple of 64 and the range ends before the end of the slot. KvmError EFAULT if ``bitmap``
        has less than ``num_pages`` bits.
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
    """The size in bytes of the bitmap for ``pages`` pages, rounded up to 64-bit words."""
    return -(-pages // WORD_PAGES) * (WORD_PAGES // 8)


def pages_of(bitmap: bytes | bytearray) -> Iterator[int]:
    """The numbers of the bits of ``bitmap`` that are set."""
    for at, byte in enumerate(bitmap):
        if byte:
            yield from (at * 8 + bit for bit in range(8) if byte >> bit & 1)
