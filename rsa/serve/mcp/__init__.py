"""The Model Context Protocol: agents call a tool, `solve`, over standard input and output or over HTTP."""
