# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The claim of one device, from its message to the customer's attempt (ClaimDevicesServiceImpl)."""

SUCCESS, FAILURE, CLAIMED = "SUCCESS", "FAILURE", "CLAIMED"

_CACHED_MS = 86400000  # the time to live of the claimDevices cache


class Claiming:
    """What the device published, in a cache, and whether a customer owns the device."""

    def __init__(self):
        self._claim = None  # {"secretKey": str, "durationMs": int}
        self._made_ms = 0
        self._is_claimed = False

    def claim(self, now_ms):
        """Tell the claim that stands, also when its duration is over, or None."""
        if self._claim is not None and now_ms - self._made_ms >= _CACHED_MS:
            self._claim = None
        return self._claim

    def remember(self, claim, now_ms):
        """Keep a claim, unless there is one or the device belongs to a customer already.

        One whose duration is over is in the way too, until a customer tries it (`attempt`).
        """
        if self.claim(now_ms) is None and not self._is_claimed:
            self._claim, self._made_ms = claim, now_ms

    def attempt(self, secret_key, now_ms):
        """Let a customer try; whatever comes of it, the claim is gone then."""
        claim, self._claim = self.claim(now_ms), None
        if self._is_claimed:
            return CLAIMED
        if claim is None or now_ms > self._made_ms + claim["durationMs"]:
            return FAILURE
        if secret_key != claim["secretKey"]:
            return FAILURE
        self._is_claimed = True
        return SUCCESS
