"""The one exception tree. Every class knows the exit status that the command line gives it."""

from __future__ import annotations


class ArmvirtError(Exception):
    """Root of everything that armvirt raises on purpose.

    ``exit_status`` is what the command line ends with when the error reaches it.
    """

    exit_status = 70


class UserError(ArmvirtError):
    """A mistake in what the user gave (file, option, size): one line that says what to do."""

    exit_status = 2


class ImageError(UserError):
    """A guest image, initrd or device tree that cannot be used."""

    def __init__(self, path: object, problem: str, hint: str = "") -> None:
        self.path, self.problem, self.hint = str(path), problem, hint
        super().__init__(f"{path}: {problem}" + (f"; {hint}" if hint else ""))


class EngineError(ArmvirtError):
    """The CPU engine does not fit, or failed: our fault or the installation's."""


class KvmError(ArmvirtError):
    """A KVM API call was refused; ``errno`` is the errno name that the ioctl would give."""

    def __init__(self, errno: str, message: str) -> None:
        self.errno = errno
        super().__init__(f"{errno}: {message}")
