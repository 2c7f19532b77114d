"""Service: a server that actors and learners on other machines reach, and its client."""

from __future__ import annotations

from diskreplay.service.rights import RIGHTS, add_token

__all__ = ["RIGHTS", "add_token"]
