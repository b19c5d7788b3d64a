"""`python -m rlm_mcp`: the same program as the command `rlm-mcp`."""

import sys

from rlm_mcp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
