"""The GIC and ITS devices of the KVM API: attributes that user space reads and writes."""
