"""The part of the local sandbox that runs in spawned child processes, on macOS and Windows.

Standard library only, any Python from 3.9 on, and nothing of ours outside this
folder: it is loaded as `rlm_spawned` by whatever interpreter a project uses.

    boot.py         the script that the interpreter is started with
    child.py        takes the host's request, closes what there is to close, runs the program
    channel.py      how the program speaks with the host
    posix.py        resource limits
    seatbelt.py     macOS: the profile, and putting it around this process
    windows.py      what the job object around this process keeps, and interrupts
"""
