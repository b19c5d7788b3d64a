"""The part of the docker sandbox that runs in the container.

Standard library only, any Python from 3.9 on, and nothing of ours outside this folder. It is sent
along when the container starts and lies in memory only, imported as `rlm_inside`.

    boot.py         the text that the interpreter is started with: takes in what was sent along
    guard.py        the first process: ends everything with the host, and is told of interrupts
    relay.py        the way of what the host sends, past the guard
    gate.py         what the guard answers when the program would make a copy of itself
    child.py        the second process: loads the program, closes what there is to close, runs it
    tries.py        what the container keeps out and what it limits, as tried from within
    filters.py      a filter of system calls beside the container's
    channel.py      how the program speaks with the host
"""
