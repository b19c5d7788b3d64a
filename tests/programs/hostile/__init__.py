"""A program that pretends to be the guest and then lies to its host."""
