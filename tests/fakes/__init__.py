"""Small honest stand-ins, each keeping the promise of what it stands for."""
