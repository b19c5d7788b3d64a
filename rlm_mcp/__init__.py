"""The doors: what MCP clients, the command line and other programs come in by."""
