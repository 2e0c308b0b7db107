"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A slow machine is no fault of the code: what takes long is a benchmark's matter.
settings.register_profile("collect-ops", deadline=None)
settings.load_profile("collect-ops")
