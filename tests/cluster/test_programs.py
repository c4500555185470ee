"""The laptop's programs, the laptop's results: the same tests, on pods."""

# ruff: noqa: F403
from tests.sdk.test_aborts import *
from tests.sdk.test_bounds import *
from tests.sdk.test_caching import *
from tests.sdk.test_code import *
from tests.sdk.test_copied import *
from tests.sdk.test_failures import *
from tests.sdk.test_kinds import *
from tests.sdk.test_older import *
from tests.sdk.test_recovering import *
from tests.sdk.test_replay import *
from tests.sdk.test_shapes import *
from tests.sdk.test_waiting import *
