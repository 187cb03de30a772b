"""The commands of the command line. Each command has a module of its own, except that ``explain``
and ``gic`` share the module ``look``."""
