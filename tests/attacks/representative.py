"""Some attacks that stand for all, for where running every one would take too long."""

from __future__ import annotations

from tests.attacks.corpus import ATTACKS

_NAMES = """
    open-by-path open-a-private-file the-c-library-reads a-raw-system-call-reads a-folder-outside-is-listed
    a-linked-name-reads open-for-writing a-file-is-removed a-file-gets-another-mode a-file-gets-another-time
    a-hidden-project-is-read a-read-only-project-is-written a-link-of-the-project-is-read
    the-environment-of-the-host-is-read the-root-of-another-process-is-entered every-process-is-searched
    the-memory-of-the-host-is-read-by-a-call the-memory-of-the-host-is-read-as-a-file
    the-host-is-signalled another-process-is-killed another-process-loses-its-files another-process-is-traced
    the-host-is-signalled-by-a-descriptor low-numbers-are-killed
    a-tcp-connection a-datagram a-unix-socket-by-name an-abstract-unix-socket a-unix-datagram-by-name
    a-pair-of-datagram-sockets-sends-elsewhere a-connection-by-raw-system-calls
    the-environment-is-asked-from-c every-descriptor-is-read
    a-child-that-outlives-a-session-which-may-have-none an-object-that-is-reduced-to-a-call
""".split()

_BY_NAME = {attack.name: attack for attack in ATTACKS}
REPRESENTATIVES = tuple(_BY_NAME[name] for name in _NAMES)
