"""The memory of a VM: memory slots (``memslot``), stage-2 tables and faults (``mmu``), and the dirty
log (``dirty_log``)."""
