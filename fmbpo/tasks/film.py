"""Episodes as videos: mp4 with the encoder of imageio-ffmpeg, gif and webp with Pillow."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from fmbpo.base.files import disk_errors, replace_file
from fmbpo.base.text import listed, one_line
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Drawing, TaskInfo

SIZE = 320, 240
"""Default width and height in pixels."""
ENDINGS = (".mp4", ".gif", ".webp")
"""File extensions, which choose the format."""

_FRAME_SECONDS = 0.04
_COLOURS = 128

Frames = Iterator[NDArray[np.uint8]]
# one observation, float32 [obs_dim] -> action, float32 [action_dim]
ActOnce = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def film(
    task: TaskInfo,
    act: ActOnce,
    seed: int,
    out: Path,
    *,
    size: tuple[int, int] = SIZE,
    steps: int | None = None,
) -> tuple[float, int]:
    """Run an episode, write it as a video; returns the sum of its rewards and its steps.

    It plays in real time with at most 25 frames per second: if a task has 50 steps per second,
    every second state is drawn. The file is written atomically; its folder is created.

    Args:
        task: the task.
        act: called once per step.
        seed: seed of the initial state, as ``Environment.reset`` takes it.
        out: the file; its extension chooses the format.
        size: width and height in pixels; mp4 needs even numbers.
        steps: agent steps to run, at most those of the longest episode, which is the default.

    Raises:
        UserError: the format does not exist, the size is odd, there are too many steps, no
            library can draw, or the file cannot be written.
        SimulationError: the simulation diverged, or an action is not finite.
    """
    last = task.episode_steps if steps is None else steps
    _check(out, size, last, task.episode_steps)
    env = task.make(drawable=True)
    every = max(1, round(_FRAME_SECONDS / env.step_seconds))
    total, step = 0.0, 0

    def frames(camera: Drawing) -> Frames:
        nonlocal total, step
        obs = env.reset(seed)
        yield camera.draw()
        while step < last and env.steps_left:
            obs, reward = env.step(act(obs))
            total, step = total + reward, step + 1
            if step % every == 0 or not env.steps_left:
                yield camera.draw()

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with env.camera(size) as camera:
        encode = _encode_mp4 if out.suffix.lower() == ".mp4" else _encode_images
        rate = 1 / (every * env.step_seconds)
        replace_file(out, lambda aside: encode(aside, frames(camera), size, rate))
    return total, step


def _check(out: Path, size: tuple[int, int], steps: int, most: int) -> None:
    if out.suffix.lower() not in ENDINGS:
        raise UserError(
            f"no video format has the extension {out.suffix!r}",
            where=str(out),
            remedy=f"use {listed(ENDINGS, 'or')}",
        )
    if out.suffix.lower() == ".mp4" and (size[0] % 2 or size[1] % 2):
        raise UserError(
            f"mp4 needs an even width and height, not {size[0]}x{size[1]}",
            where=str(out),
            remedy="change the size by one pixel, or write a .gif",
        )
    if not 1 <= steps <= most:
        raise UserError(
            f"an episode has 1 to {most} steps, not {steps}",
            where=str(out),
            remedy="give another number",
        )


def _encode_mp4(file: Path, frames: Frames, size: tuple[int, int], rate: float) -> None:
    """H.264, which every browser plays, with the index first, so that playing starts at once."""
    from imageio_ffmpeg import get_ffmpeg_exe

    file.touch()  # the system's own words about a place that cannot be written
    options = (
        f"-v error -y -f rawvideo -pix_fmt rgb24 -s {size[0]}x{size[1]} -r {rate:.3f} -i - "
        "-c:v libx264 -pix_fmt yuv420p -crf 26 -preset veryfast -movflags +faststart"
    )
    command = [get_ffmpeg_exe(), *options.split(), f"file:{file}"]  # a colon is no protocol's
    with TemporaryFile() as said:
        with (
            contextlib.suppress(BrokenPipeError),  # it has ended, and its status says so
            # A group of its own: Ctrl-C does not reach it.
            Popen(command, stdin=PIPE, stderr=said, process_group=0) as encoder,
        ):
            assert encoder.stdin is not None
            for frame in frames:
                encoder.stdin.write(frame.tobytes())
        if encoder.returncode:
            said.seek(0)
            raise OSError(errno.EIO, f"the encoder says: {one_line(said.read().decode())}")


def _encode_images(file: Path, frames: Frames, _: tuple[int, int], rate: float) -> None:
    from PIL import Image

    gif = file.suffix.lower() == ".gif"

    def images() -> Iterator[Image.Image]:
        for frame in frames:
            image = Image.fromarray(frame)
            yield image.quantize(_COLOURS, dither=Image.Dither.NONE) if gif else image

    found = images()
    next(found).save(file, save_all=True, append_images=found, duration=round(1000 / rate), loop=0)
