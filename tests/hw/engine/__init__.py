"""Tests of the engines alone. This is a package, so that its module names do not collide with
others."""

import pytest

pytest.register_assert_rewrite("engine.bench")
