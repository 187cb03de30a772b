"""The virtual Interrupt Translation Service and its LPIs."""
