"""From a VM exit to the next entry: the exits, their handlers, the exits to the VMM."""
