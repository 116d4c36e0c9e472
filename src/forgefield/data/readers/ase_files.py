"""Trajectories and structure files that ASE reads: .traj, vasprun.xml, OUTCAR, POSCAR, cif, pdb and many more."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ase import Atoms
from ase.io import iread
from ase.io.trajectory import TrajectoryReader

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.ase_frames import frame_of_atoms
from forgefield.data.ase_kinds import check_end, kind_by_content, safe_kind
from forgefield.data.lmdb_file import signature
from forgefield.data.own_handle import OwnHandle
from forgefield.data.passed_over import told
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.result_frames import ResultFrames

SHOWN = 3


class AseFilesSettings(ReaderSettings):
    """Whatever ASE reads without running or unpickling anything; labels are the results of the calculation."""


class AseFilesReader(Reader):
    """ASE parses, all checks are ours. Its own trajectories are read frame by frame, text files at once."""

    def __init__(self, settings: AseFilesSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether the content shows one of ASE's safe formats."""
        return path.is_file() and kind_by_content(path) is not None

    def open(self, path: Path) -> ResultFrames:
        """Return the frames of the file.

        Raises:
            DataError: an unknown or unsafe format, a damaged or truncated file, or no frames.
        """
        kind = safe_kind(path)
        if kind == "traj":
            return TrajectoryFrames(path, self.settings)
        ending, images, notes = _read(path, kind, skip=self.settings.on_error == "skip")
        frames = [frame_of_atoms(atoms, f"{path.name}: frame {k}") for k, atoms in enumerate(images)]
        return HeldFrames(path, frames, [*ending, *notes], self.settings)


def _read(path: Path, kind: str, *, skip: bool) -> tuple[list[str], list[Atoms], list[str]]:
    """Notes on the end of a text file, its frames, and what ASE warned of; with `skip`, the frames before damage."""
    if not skip:
        return check_end(path, kind), *read_images(path, kind)
    images, ending, more, damage = list[Atoms](), list[str](), list[str](), list[str]()
    try:
        ending = check_end(path, kind)
    except DataError as error:
        damage.append(str(error))
    try:
        _, more = read_images(path, kind, images)
    except DataError as error:
        if not images:
            raise
        damage.append(str(error))
    return [*([told(f"what comes after {len(images)} frames is", damage)] if damage else ending)], images, more


def read_images(path: Path, kind: str, images: list[Atoms] | None = None) -> tuple[list[Atoms], list[str]]:
    """Return all frames of a text file and what ASE warned of.

    Args:
        path: the file.
        kind: ASE's name of a safe format.
        images: a list that frames are added to; those before damage are then in it.

    Raises:
        DataError: it cannot be parsed; names the frame.
    """
    images = list[Atoms]() if images is None else images
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for atoms in iread(str(path), index=":", format=kind, parallel=False, do_not_split_by_at_sign=True):
                images.append(atoms)
        except Exception as error:  # parsers of foreign text raise many kinds
            what = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            where = f"{path.name}: frame {len(images)}"
            raise DataError(
                f"cannot be read as {kind} ({what})", where, "it is cut off or damaged: repair it"
            ) from None
    return images, list(dict.fromkeys(f"ASE: {str(w.message)[:200]}" for w in caught))[:SHOWN]


class HeldFrames(ResultFrames):
    """Frames that are all in memory."""

    def __init__(self, path: Path, frames: list[RawFrame], notes: Sequence[str], settings: ReaderSettings) -> None:
        self._frames = frames
        super().__init__(path, len(frames), notes, settings)

    def raw(self, index: int) -> RawFrame:
        """Return one frame."""
        return self.settled(self._frames[index])


class _QuietFile(io.FileIO):
    """A file that is closed without a warning when nobody refers to it any more."""

    def __del__(self) -> None:
        self.close()

    def _dealloc_warn(self, source: object) -> None: ...


class _OpenTrajectory:
    """A trajectory and its file, which is closed when the trajectory cannot be read."""

    def __init__(self, path: Path) -> None:
        self._stream = io.BufferedReader(_QuietFile(path))
        try:
            self.frames = TrajectoryReader(self._stream)
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class TrajectoryFrames(ResultFrames):
    """Frames of ASE's own trajectory, decoded when asked for; each thread and process opens the file for itself."""

    def __init__(self, path: Path, settings: ReaderSettings) -> None:
        self._path, self._signature = path, signature(path)
        self._own = OwnHandle(partial(_OpenTrajectory, path))
        try:
            count = len(self._reader())
        except DataError:
            raise
        except Exception as error:  # damaged files end in many kinds of exceptions of the library
            what = str(error)[:200] or type(error).__name__
            raise DataError(
                f"cannot be read as a trajectory ({what})", str(path), "it is cut off: copy it again"
            ) from None
        super().__init__(path, count, (), settings)

    def raw(self, index: int) -> RawFrame:
        """Return one frame as the file has it."""
        origin = f"{self._path.name}: frame {index}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = self._reader()[index]
        except DataError:
            raise
        except Exception as error:  # damaged files end in many kinds of exceptions of the library
            what = str(error)[:200] or type(error).__name__
            raise DataError(
                f"cannot be read ({what})", origin, "the file is cut off or damaged: copy it again"
            ) from None
        if not isinstance(atoms, Atoms):
            raise DataError("holds no atoms", origin, "copy the file again")
        return self.settled(frame_of_atoms(atoms, origin))

    def _reader(self) -> TrajectoryReader:
        reader = self._own.get()
        if signature(self._path) != self._signature:
            raise DataError("was changed while it was in use", str(self._path), "start again")
        return reader.frames


ENTRY = Entry(AseFilesSettings, AseFilesReader, "files that ASE reads: .traj, VASP, cif, pdb, ...")
