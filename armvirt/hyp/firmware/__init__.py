"""The functions that a guest calls by HVC.

* ``smccc``: the table of all calls by function id; ``smccc_services``: the calls that a VM offers.
* ``psci``: power states of CPUs and of the system.
* ``pvtime``: stolen time, and the PTP call; ``trng``: random numbers.
"""
