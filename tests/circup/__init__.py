# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the real circup needs around it to run without a network and without a board.

* `seed`: a computer's data folder of circup, a board's drive, the releases of the bundles
* `webworkflow`: a board that is reached by its Web Workflow
* `github`: github.com, as far as circup asks it
* `website`: the web server that both of them are
* `compiler`: a mpy-cross that is good for circup's reading only
"""
