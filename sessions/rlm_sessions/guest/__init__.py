"""The program that runs inside the sandbox. Standard library only; knows nothing of the host."""
