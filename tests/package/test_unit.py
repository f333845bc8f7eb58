# SPDX-License-Identifier: BSD-2-Clause
"""What systemd itself says of the unit, without running as PID 1."""

import os
import shutil
import subprocess

import unit as units

EXPOSURE_MAX = "25"  # 2.5; measured: 2.4


def test_exposure_stays_low():
    done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=true",
                           f"--threshold={EXPOSURE_MAX}", units.UNIT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unit_is_valid(tmp_path):
    """With programs that exist here; manual pages are looked for on the system, so they are left out."""
    with open(units.UNIT) as file:
        lines = [line for line in file if not line.startswith("Documentation=")]
    text = "".join(lines).replace("/usr/sbin/shuntd", shutil.which("true"))
    path = tmp_path / "shuntd.service"
    path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "shuntd" in line]
    assert done.returncode == 0 and not ours, ours


def test_service_user_is_in_the_sysusers_file():
    with open(os.path.join(units.REPO, "systemd", "shuntd.sysusers")) as file:
        words = [line.split()[:2] for line in file if not line.startswith("#")]
    assert words == [["u", units.read()["SupplementaryGroups"][0]]]
