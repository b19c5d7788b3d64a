"""What the bundle starts: the server, over stdio."""

import sys

from rlm_mcp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["serve"]))
