# SPDX-License-Identifier: BSD-2-Clause
"""Traffic tests of who is speaking and to whom: PROXY headers in and out, backends by TLS server name."""

import os

SEEDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fuzz")
