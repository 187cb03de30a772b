"""The engines on a bench: a package, so that its modules cannot be mistaken for others of the same
name."""

import pytest

pytest.register_assert_rewrite("engine.bench")
