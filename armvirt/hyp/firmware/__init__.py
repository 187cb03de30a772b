"""The functions that a guest calls by HVC or SMC.

* ``smccc``: the calls by function id; ``smccc_services``: which calls a VM offers.
* ``psci``: power states of CPUs and of the system.
* ``pvtime``: stolen time, and the PTP call; ``trng``: random numbers.
"""
