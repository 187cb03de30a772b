"""The functions that a guest calls by HVC or SMC: PSCI and the services of the SMC calling
convention."""
