# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# What the host is made of, read without Ansible and without Python: entries, digests, record, what is left of a payload.
cd /
roots=$(ls -d opt/shop etc/shop etc/systemd/system var/lib/onprem-rollout 2>/dev/null)
find $roots -printf '%y %m %U:%G %T@ %p\0%l\0'
printf -- '--\0'
find $roots -type f -print0 | xargs -0 -r sha256sum -z
printf -- '--\0'
cat var/lib/onprem-rollout/record.json 2>/dev/null
printf '\0--\0'
for environ in $(grep -lzs '^ONPREM_ROLLOUT=' /proc/[0-9]*/environ); do
  printf '%s: ' "$environ"
  tr '\0' ' ' <"$(dirname "$environ")/cmdline"
done
printf '\0--\0'
systemctl is-active shop.service
systemctl is-enabled shop.service
