"""The `diskreplay` command line."""
