"""Preparing a folder of images for many epochs: smaller JPEGs in ArrayRecord files (see `records`)."""

import contextlib
import fcntl
import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxnets import atomic
from jaxnets.data import decoding, files, records, sources
from jaxnets.data.folder import FolderSource
from jaxnets.data.processes import mapped
from jaxnets.data.records import Manifest, Shard, Unreadable
from jaxnets.data.shortening import Job, example_of
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError
from jaxnets.paths import expanded, shown

IMAGES_PER_SHARD = 4096  # about 100 MiB at 256 pixels
MAX_SHARDS = 512  # of a split: its readers hold all files open, of which many systems allow 1,024

_WORTH_A_PROCESS = 200  # images that take as long as a process takes to start
_UNFINISHED, _LOCK = ".unfinished", ".lock"

_logger = logging.getLogger("jaxnets")


def prepare(
    spec: str,
    output: str | os.PathLike,
    *,
    size: int = 256,
    quality: int = 90,
    processes: int | None = None,
    strict: bool = False,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Manifest:
    """Writes the images of a folder as smaller JPEGs into ArrayRecord files, for ``records:PATH``.

    The splits, classes and order are those of the folder. Images keep their aspect ratio and are never
    enlarged, and their EXIF orientation is applied; RGB JPEGs that are small enough are copied byte for
    byte. The files do not depend on the number of processes. After an interrupt or a kill, the same
    call continues with the first unfinished file.

    With more than one process, a script that calls this must be guarded by
    ``if __name__ == "__main__":``.

    Args:
        spec: ``"folder:PATH"``.
        output: the directory to write.
        size: maximum of the shorter side of the images, in pixels.
        quality: JPEG quality, 1 to 100.
        processes: number of processes; None for one per core.
        strict: raise for an image that cannot be read, instead of leaving it out with a warning.
        images_per_shard: number of images per file; larger for very large folders.

    Returns:
        What was written.

    Raises:
        InputError: an argument out of range; an error of `load_folder`; an output with other content,
            or prepared from other files or with other options; an image that cannot be read, if
            `strict`, or a split without a readable image; a full disk.
    """
    for name, value, most in (("size", size, 65_500), ("quality", quality, 100)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(f"{name} must be an integer from 1 to {most}, got {value!r}")
    if processes is not None and processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}")
    kind, _, folder = spec.partition(":")
    if kind != "folder" or not folder:
        raise InputError(f"only folders of images can be prepared: expected folder:PATH, got {spec!r}")
    root, directory = expanded(folder), expanded(output)
    if directory.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"output {directory} is inside {root}, where it would become a class; choose another place"
        )
    dataset = sources.load(spec)
    listed = dataset.name.removeprefix("folder:")  # what its paths begin with
    jobs = {split: _Jobs(source, os.path.join(listed, "")) for split, source in dataset.splits.items()}
    plan = Manifest(
        fingerprint=dataset.fingerprint,
        size=size,
        quality=quality,
        class_names=dataset.class_names,
        splits={split: _shards(len(found), images_per_shard) for split, found in jobs.items()},
    )
    with _begun(directory, plan) as manifest:
        if not manifest.complete:
            _write_shards(directory, manifest, jobs, processes or os.cpu_count() or 1, strict)
            _complete(directory, manifest, jobs)
    _report(manifest, strict)
    return manifest


class _Jobs:
    """The jobs of a split, made when they are asked for: there may be millions."""

    def __init__(self, source: FolderSource, prefix: str):
        self.labels, self._paths, self._prefix = source.labels, source.paths, prefix

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Job:
        path = self._paths[index]
        return Job(path, path.removeprefix(self._prefix), int(self.labels[index]))


def _shards(images: int, images_per_shard: int) -> list[Shard]:
    each = max(images_per_shard, -(-images // MAX_SHARDS))
    return [Shard(min(each, images - start)) for start in range(0, images, each)]


@contextlib.contextmanager
def _begun(directory: Path, plan: Manifest) -> Iterator[Manifest]:
    """The manifest of a directory that is ours alone: the plan, or the plan as far as it is done."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"output {directory} is a file; choose another place") from None
    begun = (directory / records.MANIFEST).exists()
    found = [path.name for path in directory.iterdir() if not _is_remnant(path)]
    if found and not begun:
        raise InputError(
            f"output {directory} has other files ({min(found)}); choose a new or an empty directory"
        )
    with _locked(directory):
        manifest = Manifest.read(directory) if begun else plan
        _check_same(directory, manifest, plan)
        _forget_missing(directory, manifest)
        for path in directory.glob(f"*{_UNFINISHED}"):
            path.unlink()
        _save(directory, manifest)
        yield manifest


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keeps other processes from the directory; after a kill the system ends that."""
    with (directory / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is preparing {directory}; wait for it") from None
        except OSError:  # the file system has no locks
            pass
        try:
            yield
        finally:
            (directory / _LOCK).unlink(missing_ok=True)


def _is_remnant(path: Path) -> bool:
    """Whether a file was left by a kill."""
    return path.name.endswith(_UNFINISHED) or path.name in (_LOCK, f"{records.MANIFEST}.new")


def _check_same(directory: Path, manifest: Manifest, plan: Manifest) -> None:
    for name in ("size", "quality"):
        was, wanted = getattr(manifest, name), getattr(plan, name)
        if was != wanted:
            raise InputError(
                f"output {directory} was prepared with {name} {was}, not {wanted}; remove it, or choose "
                "another place"
            )
    if (manifest.fingerprint, manifest.class_names) != (plan.fingerprint, plan.class_names):
        raise InputError(
            f"output {directory} was prepared from other files; remove it, or choose another place"
        )


def _forget_missing(directory: Path, manifest: Manifest) -> None:
    """Marks shards that are gone or damaged as not written."""
    for path, shard in records.files_of(directory, manifest):
        if shard.size is not None and not records.is_whole(shard, path):
            shard.size, shard.left_out, manifest.complete = None, [], False


def _write_shards(
    directory: Path, manifest: Manifest, jobs: dict[str, _Jobs], processes: int, strict: bool
) -> None:
    """Writes the missing shards in order. Processes convert the images; this one writes them."""
    tasks = []  # path and shard, and the jobs of its images
    for split, shards in manifest.splits.items():
        ends = itertools.accumulate(shard.images for shard in shards)
        for number, (shard, end) in enumerate(zip(shards, ends, strict=True)):
            if shard.size is None:
                path = records.shard_path(directory, split, number, len(shards))
                tasks.append((path, shard, jobs[split], range(end - shard.images, end)))
    count = sum(shard.images for _, shard, _, _ in tasks)
    wanted = (found[index] for _, _, found, indices in tasks for index in indices)
    convert = functools.partial(example_of, size=manifest.size, quality=manifest.quality)
    processes = min(processes, 1 + count // _WORTH_A_PROCESS)
    with (
        mapped(convert, wanted, processes) as converted,
        contextlib.closing(tracked(converted, count, "preparing")) as examples,
    ):
        for path, shard, found, indices in tasks:
            with _writing(path) as write:
                for index, example in zip(
                    indices, itertools.islice(examples, len(indices)), strict=True
                ):
                    if isinstance(example, bytes):
                        write(example)
                    else:
                        shard.left_out.append(Unreadable(index, found[index].name, example))
                        if strict:
                            raise _refusal(shard.left_out)
            shard.size = path.stat().st_size
            _save(directory, manifest)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that writes a record; the file gets its name when it is whole and on the disk."""
    from array_record.python.array_record_module import ArrayRecordWriter

    unfinished = path.with_name(path.name + _UNFINISHED)

    def write(record: bytes) -> None:
        with _errors_told(path):
            writer.write(record)

    try:
        with _errors_told(path):
            writer = ArrayRecordWriter(str(unfinished), "group_size:1,uncompressed")  # as JPEGs are
        try:
            yield write
        finally:
            with _errors_told(path):
                writer.close()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors_told(path: Path) -> Iterator[None]:
    """Tells a RuntimeError, which is what array_record raises if the disk is full, in a line."""
    try:
        yield
    except RuntimeError as error:
        reason = decoding.describe(error).partition(";")[0]
        raise InputError(
            f"cannot write {path}: {reason}; finished files stay, and the same command continues"
        ) from error


def _complete(directory: Path, manifest: Manifest, jobs: dict[str, _Jobs]) -> None:
    """Writes what is beside the shards: labels, and the metadata of TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    for split, shards in manifest.splits.items():
        left_out = [image.index for shard in shards for image in shard.left_out]
        labels = np.delete(jobs[split].labels, left_out)
        if len(labels) == 0:
            raise InputError(f"no image of split {split} can be read: {_named(manifest.left_out)}")
        np.save(records.labels_path(directory, split), labels)
    # It writes names on lines, as UTF-8, without spaces around them; the manifest has them as they are.
    names = [shown(name).strip() for name in manifest.class_names]
    label = {"names": names} if len(set(names)) == len(names) else {"num_classes": len(names)}
    tfds.folder_dataset.write_metadata(
        data_dir=str(directory),
        features={
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(**label),
            "file_name": tfds.features.Text(),
        },
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(shard) for shard in shards],
                num_bytes=sum(shard.size for shard in shards),
            )
            for split, shards in manifest.splits.items()
        ],
        version="1.0.0",
        check_data=False,
    )
    manifest.complete = True
    _save(directory, manifest)


def _save(directory: Path, manifest: Manifest) -> None:
    atomic.write_text(directory / records.MANIFEST, manifest.to_json())


def _report(manifest: Manifest, strict: bool) -> None:
    """Says what was left out, or raises if `strict`."""
    left_out = manifest.left_out
    if left_out and strict:
        raise _refusal(left_out)
    if left_out:
        images = sum(shard.images for shards in manifest.splits.values() for shard in shards)
        _logger.warning(
            "%d of %d images cannot be read and are left out: %s",
            len(left_out),
            images,
            _named(left_out),
        )


def _refusal(left_out: Sequence[Unreadable]) -> InputError:
    return InputError(
        f"cannot read {_named(left_out)}; repair or remove it, or leave it out with strict=False"
    )


def _named(left_out: Sequence[Unreadable]) -> str:
    return files.named([f"{image.name} ({image.why})" for image in left_out])
