"""Pictures of a task without a display: MuJoCo's renderer on an offscreen OpenGL context."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import weakref
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv

PLATFORMS = {"egl": "libegl1", "osmesa": "libosmesa6"}
"""Platforms that draw without a display, by preference, with their Debian packages."""

_SAMPLES = 4
_GEOMS = 1000


class Camera:
    """Draws a ``TaskEnv`` that was built ``drawable``; a context manager.

    The view is from the model's first camera, as in dm_control. There are no shadows or
    reflections: without a GPU they take three quarters of the time.
    """

    def __init__(self, env: TaskEnv, size: tuple[int, int]) -> None:
        """``size``: width, height in pixels. UserError, naming packages, if no platform works."""
        width, height = size
        model, data = env.env.physics.model.ptr, env.env.physics.data.ptr
        self._gl = _context(width, height)
        self._gl.make_current()
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.offsamples = _SAMPLES
        self._drawer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawer)
        self._scene = mujoco.MjvScene(model, _GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False
        view = mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        self._shown = model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), view
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)
        self.close = weakref.finalize(self, _free, self._gl, self._drawer)
        """Frees the context; nothing can be drawn afterwards."""

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def draw(self) -> NDArray[np.uint8]:
        """The current state as RGB in 0..255, ``[height, width, 3]``."""
        self._gl.make_current()
        mujoco.mjv_updateScene(*self._shown, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._drawer)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._drawer)
        return self._pixels[::-1].copy()  # OpenGL's first row is the bottom one


def _context(width: int, height: int) -> Any:
    """A context of the first platform that works; ``MUJOCO_GL`` may name the first one to try.

    MuJoCo reads ``MUJOCO_GL`` only when it is imported, here usually as "disable"; its platform
    modules do not depend on it.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    for platform in sorted(PLATFORMS, key=lambda name: name != wanted):
        before = os.environ.get("PYOPENGL_PLATFORM")
        try:
            return importlib.import_module(f"mujoco.{platform}").GLContext(width, height)
        except Exception:  # each library raises its own errors for a missing part
            _forget(platform, before)
    raise UserError(
        "no library on this machine can draw without a display: neither EGL nor OSMesa works",
        where="rendering",
        remedy="install one of them; on Debian and Ubuntu: "
        f"apt-get install {' or '.join(PLATFORMS.values())}",
    )


def _forget(platform: str, before: str | None) -> None:
    """Undo a failed import: PyOpenGL takes one platform per process."""
    for name in list(sys.modules):
        if name.split(".")[0] == "OpenGL" or name.startswith(f"mujoco.{platform}"):
            del sys.modules[name]
    if before is None:
        os.environ.pop("PYOPENGL_PLATFORM", None)


def _free(context: Any, drawer: Any) -> None:
    # At the end of the process, the platform may already be gone.
    with contextlib.suppress(Exception):
        context.make_current()
        drawer.free()
    with contextlib.suppress(Exception):
        context.free()
    context._context = None  # its own __del__ would try again
