"""A program for sandboxes to run in tests. Standard library only, like a guest."""
