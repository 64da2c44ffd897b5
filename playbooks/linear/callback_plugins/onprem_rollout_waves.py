# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Callback plugins that stand beside a playbook are loaded with it, and need not be enabled."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.callback.waves import DOCUMENTATION, CallbackModule

__all__ = ["DOCUMENTATION", "CallbackModule"]
