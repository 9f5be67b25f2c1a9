"""The small installation of the integration tests, for whole systems that begin with one."""

from tests.integration.conftest import judged_home, new_home, trained_home

__all__ = ["judged_home", "new_home", "trained_home"]
