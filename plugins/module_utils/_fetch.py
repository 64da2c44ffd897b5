# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file fetched by URL, never larger than declared."""

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.request
from typing import Any

from ._errors import Refused, RolloutError

CHUNK = 1024 * 1024
TIMEOUT = 30.0


def redacted(url: str) -> str:
    """The URL without a user name, a password or a query, which may be secret."""
    return re.sub(r"//[^/?#@]*@", "//***@", re.sub(r"\?[^#]*", "?***", url))


def fetch(url: str, path: str, size: int, timeout: float = TIMEOUT) -> None:
    """Write what C(url) gives to C(path), a new file. RolloutError when it cannot be had or is longer than C(size).

    C(timeout) is how many seconds the server may be silent. The proxies of the environment are used.
    """
    if not re.match(r"(https?|file)://", url):
        raise Refused("The URL {0} is of an unknown kind. Allowed: http://, https:// and file://.".format(redacted(url)), "bad_url")
    try:
        with contextlib.closing(urllib.request.urlopen(url, timeout=timeout)) as response:
            _copy(response, url, path, size)
    except urllib.error.HTTPError as error:
        raise _failed(url, "the server answers {0} {1}".format(error.code, error.reason)) from None
    except (http.client.HTTPException, ValueError) as error:
        raise _failed(url, str(error) or type(error).__name__) from None
    except OSError as error:
        if getattr(error, "filename", None) == path:
            raise
        cause = getattr(error, "reason", error)
        raise _failed(url, str(getattr(cause, "strerror", None) or cause or type(cause).__name__)) from None


def _copy(response: Any, url: str, path: str, size: int) -> None:
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) != size:
        raise _size(url, "{0} bytes".format(declared), size)
    left = size
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
        for chunk in iter(lambda: response.read(CHUNK), b""):
            if len(chunk) > left:
                raise _size(url, "more than that", size)
            left -= len(chunk)
            out.write(chunk)
    if left:
        raise _failed(url, "the server gave {0} of {1} bytes".format(size - left, size))


def _size(url: str, found: str, size: int) -> RolloutError:
    return RolloutError(
        "The artifact {0} should have {1} bytes by its release, but the server gives {2}. Nothing was unpacked. Publish it again, "
        "or correct size in rollout_release.".format(redacted(url), size, found),
        "size",
    )


def _failed(url: str, why: str) -> RolloutError:
    return RolloutError("The artifact {0} cannot be fetched: {1}. Nothing was unpacked.".format(redacted(url), why), "fetch")
