"""The whole, from outside: real clients, real servers, and everything between them."""
