"""A filter of system calls (seccomp), for the process that runs a student's code.

It forbids what walls and limits do not reach: namespaces of one's own (in which one is root, and
mounts file systems of any size), memory that no process holds, sockets but those between the
processes of one machine, and parts of the kernel that no assignment needs. Linux:
Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

# Numbers of system calls: on x86_64 and on aarch64.
FORBIDDEN = {
    "unshare": (272, 97),
    "setns": (308, 268),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "mq_open": (240, 180),
    "semget": (64, 190),
    "io_uring_setup": (425, 425),
}
CLONE, CLONE3 = (56, 220), (435, 435)
SOCKETS = {"socket": (41, 198), "socketpair": (53, 199)}
AF_UNIX = 1  # the one family of sockets that is allowed
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the kernel's AUDIT_ARCH_
NAMESPACES = 0x7E020000  # clone's flags CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
X32 = 0x40000000  # calls of another form on x86_64
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # places in struct seccomp_data
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2


def program(machine: str) -> bytes:
    """The filter as the kernel's instructions (code, jump if true, if false, operand).

    Raises:
        OSError: on a machine whose system calls are not listed here.
    """
    if machine not in ARCHITECTURES:
        raise OSError(f"expected a machine of {sorted(ARCHITECTURES)}, got {machine}")
    column, architecture = ARCHITECTURES[machine]
    refused = [(RETURN, 0, 0, ERROR | errno.EPERM)]
    lines = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), *refused]
    lines += [(LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, X32), *refused]
    for numbers in FORBIDDEN.values():
        lines += [(EQUAL, 0, 1, numbers[column]), *refused]
    # Its flags lie in memory, where a filter cannot look; the C library then uses clone.
    lines += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, ERROR | errno.ENOSYS)]
    for numbers in SOCKETS.values():
        lines += [(EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, FIRST_ARGUMENT)]
        lines += [(EQUAL, 0, 1, AF_UNIX), (RETURN, 0, 0, ALLOW), *refused]
    lines += [(EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT)]
    lines += [(ANY_BIT, 0, 1, NAMESPACES), *refused, (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def forbid() -> None:
    """Put the filter on this process and all that it will start, for ever.

    Raises:
        OSError: if the kernel does not take it.
    """
    text = program(os.uname().machine)
    buffer = ctypes.create_string_buffer(text, len(text))
    pointer = struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, pointer, 0, 0)):
        words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments[1:]]
        if libc.prctl(arguments[0], *words):
            raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
