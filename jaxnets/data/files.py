"""Image files in folders: which there are, which are left out, and whether their headers are right."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from jaxnets.data import decoding
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError
from jaxnets.paths import shown

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""Of the files that are taken; their content decides what they are."""

DANGLING, LOOPING = "dangling links", "links to a folder that they are in"
LOOSE = "images in no class folder"

_NAMED_AT_MOST = 5


def folders_in(root: str, left_out: Counter[str], above: Sequence[str] = ()) -> list[str]:
    """The names of the folders in a folder that are not hidden, sorted; linked ones too.

    Args:
        root: the folder.
        left_out: where images beside the folders are counted, and links that are not followed.
        above: the folders that `root` is in, which a link may lead back to.

    Raises:
        InputError: the folder cannot be listed.
    """
    around = (*above, root)
    found = []
    for entry in _entries(root):
        kind = _kind(entry, around)
        if kind == "folder":
            found.append(entry.name)
        elif kind == "file" and _ending(entry.name) in ENDINGS:
            left_out[LOOSE] += 1
        elif kind in (DANGLING, LOOPING):
            left_out[kind] += 1
    return sorted(found)


def image_files(root: str, left_out: Counter[str], above: Sequence[str] = ()) -> list[str]:
    """The image files in a folder and the folders in it, sorted; linked ones too, hidden ones not.

    No file is opened: an ending of `ENDINGS` makes an image file.

    Args:
        root: the folder.
        left_out: where other files are counted by their ending, and links that are not followed.
        above: the folders that `root` is in, which a link may lead back to.

    Raises:
        InputError: a folder cannot be listed.
    """
    paths, waiting = [], [(root, tuple(above))]
    while waiting:
        folder, above = waiting.pop()
        around = (*above, folder)
        for entry in _entries(folder):
            kind = _kind(entry, around)
            if kind == "folder":
                waiting.append((entry.path, around))
            elif kind != "file":
                left_out[kind] += 1
            elif (ending := _ending(entry.name)) in ENDINGS:
                paths.append(entry.path)
            else:
                left_out[ending or "no ending"] += 1
    return sorted(paths)


def counted(left_out: Counter[str]) -> str:
    """Says what was left out: "5 files: .txt 3, .pdf 1, dangling links 1"."""
    most = left_out.most_common(_NAMED_AT_MOST)
    told = [f"{shown(kind)} {count}" for kind, count in most]
    rest = left_out.total() - sum(count for _, count in most)
    return f"{left_out.total()} files: {', '.join(told)}{f', others {rest}' if rest else ''}"


def named(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(map(shown, names[:_NAMED_AT_MOST])) + more


def check_headers(paths: Sequence[str]) -> None:
    """Reads the headers of image files, in threads, with a progress bar if it takes long.

    Raises:
        InputError: some are not those of images; the message names a few.
    """
    with ThreadPoolExecutor() as pool:
        errors = list(tracked(pool.map(decoding.header_error, paths), len(paths), "reading headers"))
    bad = [f"{path} ({error})" for path, error in zip(paths, errors, strict=True) if error]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(paths)} images cannot be read, the first is {shown(bad[0])}; "
            "repair or remove them, or pass strict=False to give them weight 0"
        )


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "."]
    except OSError as error:
        raise InputError(f"folder {shown(folder)} cannot be listed: {error.strerror}") from error


def _holds(link: str, folders: Sequence[str]) -> bool:
    """Whether a linked folder is one of these, or has one of them somewhere in it."""
    target = os.path.realpath(link)
    return any(os.path.commonpath([target, os.path.realpath(one)]) == target for one in folders)


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _kind(entry: os.DirEntry, around: Sequence[str]) -> str:
    """What an entry is: "file", "folder", or why it is neither. Only links take a look at the disk."""
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            loops = entry.is_symlink() and _holds(entry.path, around)
            return LOOPING if loops else "folder"
        return DANGLING if entry.is_symlink() else "special files"
    except OSError:  # such as a link to itself
        return DANGLING
