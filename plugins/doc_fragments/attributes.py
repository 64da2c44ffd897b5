# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attributes that every module of this collection states."""


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and says what would be done without changing the host.
  diff_mode:
    description: Says in diff mode what is changed, or in check mode what would be.
  platform:
    description: The systems that can be managed.
    support: full
    platforms: linux
"""

    ACTION = r"""
options: {}
attributes:
  action:
    description: Has an action plugin of the same name, which runs on the controller and adds what only the controller knows.
    support: full
"""
