"""The exceptions of armvirt. Each exception class has an exit status of the command line."""

from __future__ import annotations

import errno

#: Exit statuses of the command line: an error inside armvirt, and the end by the user (Ctrl-C,
#: Ctrl-A x).
INTERNAL, INTERRUPTED = 70, 130


class ArmvirtError(Exception):
    """The base class of all exceptions that armvirt raises on purpose.

    ``exit_status`` is the exit status of the command line if a command ends by this exception.
    """

    exit_status = INTERNAL


class UserError(ArmvirtError):
    """An error in the input of the user (file, option, size). The message is one line, and often
    tells the user what to do."""

    exit_status = 2


class ImageError(UserError):
    """A file (guest image, initrd, device tree or other input) cannot be used."""

    def __init__(self, path: object, problem: str, hint: str = "") -> None:
        self.path, self.problem, self.hint = str(path), problem, hint
        super().__init__(f"{path}: {problem}" + (f"; {hint}" if hint else ""))


_LACKS = {
    errno.EMFILE: "the process has too few file descriptors; raise ulimit -n",
    errno.ENFILE: "the system has too few file descriptors; end other programs",
    errno.ENOMEM: "the process gets too little memory; raise ulimit -v, or give the guest less with --mem",
    errno.EAGAIN: "the process gets no more threads or processes; raise ulimit -u",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than the limit; raise ulimit -f",
}


def lack_of(error: BaseException) -> str | None:
    """Return a message of one line if the cause of ``error`` is a missing resource of the host
    (memory, file descriptors, disk space). None for any other error."""
    if isinstance(error, MemoryError):
        return _LACKS[errno.ENOMEM]
    number = error.errno if isinstance(error, OSError) else None
    return None if number is None else _LACKS.get(number)


class LimitError(ArmvirtError):
    """A limit of host time ended a command before the command had a result."""

    exit_status = 4


class EngineError(ArmvirtError):
    """The CPU engine failed, or a part of the engine is missing or has the wrong version. This is
    an error of armvirt or of the installation."""


class KvmError(ArmvirtError):
    """The KVM API refused a call. ``errno`` is the name of the errno that the ioctl would
    return."""

    def __init__(self, errno: str, message: str) -> None:
        self.errno = errno
        super().__init__(f"{errno}: {message}")
