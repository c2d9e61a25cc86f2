"""Pictures of a task without a display: MuJoCo's renderer on an offscreen OpenGL context."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import weakref
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from fmbpo.base.text import one_line
from fmbpo.errors import UserError
from fmbpo.tasks.simulator import mujoco

PLATFORMS = {"egl": "libegl1", "osmesa": "libosmesa6"}
"""Platforms that draw without a display, by preference, with their Debian packages."""

_SAMPLES = 4
_GEOMS = 1000


class Camera:
    """Draws a MuJoCo simulation; a context manager.

    There are no shadows or reflections: without a GPU they take three quarters of the time.
    """

    def __init__(self, model: Any, data: Any, size: tuple[int, int], view: int = 0) -> None:
        """``size``: width, height in pixels; ``view``: which of the model's cameras. UserError,
        naming packages, if no platform works."""
        width, height = size
        self._gl = _context(width, height)
        self._gl.make_current()
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.offsamples = _SAMPLES
        self._drawer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawer)
        self._scene = mujoco.MjvScene(model, _GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, view
        self._shown = model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), camera
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

    MuJoCo's platform modules do not depend on the renderer that it was imported with.
    """
    wanted, reasons = os.environ.get("MUJOCO_GL", "").lower(), list[str]()
    for platform in sorted(PLATFORMS, key=lambda name: name != wanted):
        try:
            with mock.patch.dict(os.environ):
                os.environ.pop("PYOPENGL_PLATFORM", None)  # the module sets it, or refuses another
                return importlib.import_module(f"mujoco.{platform}").GLContext(width, height)
        except Exception as error:  # each library raises its own errors for a missing part
            reasons.append(f"{platform}: {one_line(str(error)) or type(error).__name__}")
            _forget(platform)
    raise UserError(
        f"no library on this machine can draw without a display ({'; '.join(reasons)})",
        where="rendering",
        remedy="install one of them; on Debian and Ubuntu: "
        f"apt-get install {' or '.join(PLATFORMS.values())}",
    )


@cache
def platform_variable() -> dict[str, str]:
    """``MUJOCO_GL`` with a platform that works here, for libraries that ask it; empty if none
    does."""
    try:
        context = _context(8, 8)
    except UserError:
        return {}
    context.free()
    return {"MUJOCO_GL": type(context).__module__.removeprefix("mujoco.")}


def _forget(platform: str) -> None:
    """Undo a failed import: PyOpenGL takes one platform per process."""
    for name in list(sys.modules):
        if name.split(".")[0] == "OpenGL" or name.startswith(f"mujoco.{platform}"):
            del sys.modules[name]


def _free(context: Any, drawer: Any) -> None:
    # At the end of the process, the platform may already be gone.
    with contextlib.suppress(Exception):
        context.make_current()
        drawer.free()
    with contextlib.suppress(Exception):
        context.free()
    context._context = None  # its own __del__ would try again
