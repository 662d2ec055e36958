"""The `rsa` command: its commands, flags, displays, and how a process begins and ends."""
