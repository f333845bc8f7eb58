# SPDX-License-Identifier: BSD-2-Clause
"""Traffic tests of what an operator relies on: balance, health, retries, queue, limits, timeouts, reload, drain."""
