"""The exceptions of armvirt. Each class has the exit status of the command line."""

from __future__ import annotations

import errno

#: Exit statuses of the command line: an error inside armvirt, and the end by the user (Ctrl-C,
#: Ctrl-A x).
INTERNAL, INTERRUPTED = 70, 130


class ArmvirtError(Exception):
    """The base class of all errors that armvirt raises on purpose.

    ``exit_status`` is the exit status of the command line for this error.
    """

    exit_status = INTERNAL


class UserError(ArmvirtError):
    """An error in the user's input (file, option, size). The message is one line that tells the
    user what to do."""

    exit_status = 2


class ImageError(UserError):
    """A guest image, initrd or device tree that cannot be used."""

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
    """The message for an error that has its reason in a lack of a host resource (memory, files,
    disk space), as one line. None for any other error."""
    if isinstance(error, MemoryError):
        return _LACKS[errno.ENOMEM]
    number = error.errno if isinstance(error, OSError) else None
    return None if number is None else _LACKS.get(number)


class LimitError(ArmvirtError):
    """A limit of host time ended a command that has no other result."""

    exit_status = 4


class EngineError(ArmvirtError):
    """The CPU engine failed, or its parts do not match: an error of armvirt or of the
    installation."""


class KvmError(ArmvirtError):
    """The KVM API refused a call. ``errno`` is the name of the errno that the ioctl would
    return."""

    def __init__(self, errno: str, message: str) -> None:
        self.errno = errno
        super().__init__(f"{errno}: {message}")
