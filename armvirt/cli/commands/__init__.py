"""The commands of the command line: a module for each command, and ``look`` for ``explain`` and
``gic``."""
