"""Benchmarks of diskreplay against other replay buffers, each in a process of its own."""
