"""The part of the local sandbox that runs in the child processes, on Linux.

Standard library only, any Python from 3.9 on, and nothing of ours outside this
folder: it is loaded as `rlm_jail` by whatever interpreter a project uses.

    zygote.py       starts, prepares itself, forks a worker for each request
    worker.py       closes the jail around itself, then runs the program
    mounts.py, privileges.py, landlock.py, seccomp.py       the layers
    channel.py      how the program inside speaks with the host
    questions.py    what the kernel asks about copies of the program
    system.py, syscalls.py                                  the kernel, by ctypes
"""
