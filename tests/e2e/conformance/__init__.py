"""What the conformance suite of the protocol needs beside this project's server."""
