"""The systems under test: a module and a process each, run by the python of its environment."""
