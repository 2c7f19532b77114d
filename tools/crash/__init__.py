"""Fault injectors: they break stores on purpose and count what was lost. Run from tools/."""
