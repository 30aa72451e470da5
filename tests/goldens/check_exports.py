"""Our exports in the reference libraries themselves: `python check_exports.py [NAME ...]`.

For each classifier in the families' `WEIGHTS`, once for each library that has it, and torchvision's
segmenters: our model's
drawn weights are exported, saved as safetensors, read back by the library of that format for torch,
taken by the reference's `load_state_dict(strict=True)`, and both programs score the same images. Then a
`.pth` file that torch wrote of the reference comes in, and must give the same bits; and what torch
files can do wrong is tried on real ones. Prints the table that is kept in `check_exports.md`.

It needs what README.md says, and what jaxnets needs: pip install flax optax.
"""

import argparse
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import draw
import jax
import numpy as np
import safetensors.torch
import torch
from make_goldens import built
from references import GOLDENS, Reference
from segmenters import SEGMENTERS

from jaxnets import weights
from jaxnets.errors import InputError
from jaxnets.models import create_model, list_models, published_weights
from jaxnets.weights import files

QUIET = {row.constructor: row.quiet for row in GOLDENS.values()}
QUIET |= {row.model: row.quiet for row in SEGMENTERS.values()}
SIZES = {row.constructor: row.size for row in sorted(GOLDENS.values(), key=lambda row: row.size)}


def rows() -> dict[tuple[str, str, str], dict]:
    """Model, library and what that calls it, with the settings that the weights bring."""
    found = {}
    for name in list_models(pretrained=True, task="classification"):
        for row in published_weights(name):
            if row.library == "keras":  # `make_keras_goldens.py` has Keras read and write files
                continue
            library = row.library.replace("torchvision_files", "torchvision")
            found[name, library, row.architecture] = dict(row.settings)
    for name in sorted({row.model for row in SEGMENTERS.values()}):
        found[name, "torchvision", name] = {}
    return found


def drawn(model, constructor: str, library: str) -> dict:
    """Variables of ours, drawn by the names that the library gives them."""
    shapes = weights.conversion.places_of(model, library)
    shapes = {place.key: place.reference_shape for place in shapes}
    quiet = QUIET.get(constructor, QUIET.get(f"legacy_{constructor}", ""))
    state_dict = draw.state_dict(shapes, quiet)
    _, places = weights.conversion.fitted(model, shapes, library)
    return weights.conversion.filled(places, state_dict, np.float32)


def check(name: str, library: str, constructor: str, settings: dict, folder: Path) -> str:
    size, segments = SIZES.get(constructor, 64), name in list_models(task="segmentation")
    options = {"init_weights": False} if constructor in ("googlenet", "inception_v3") else {}
    if options and library == "torchvision":
        options["aux_logits"] = False
    elif segments:
        options = {"weights_backbone": None} | ({} if name.startswith("lraspp") else {"aux_loss": True})
    else:
        options = {}
    reference, _ = built(Reference(library, constructor, size=size, options=options))
    reference = reference.float().eval()
    model = create_model(name, **settings)
    variables = drawn(model, constructor, library)
    exported = folder / "exported.safetensors"
    tensors = weights.to_torch(name, variables, library, **settings)
    files.write_safetensors(exported, tensors)
    reference.load_state_dict(safetensors.torch.load_file(exported), strict=True)
    images = draw.images(2, size)
    with torch.inference_mode():
        wanted = reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        wanted = wanted["out"].permute(0, 2, 3, 1).numpy() if segments else wanted.numpy()
    found = np.asarray(jax.jit(model.apply)(variables, images))
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    torch.save(reference.state_dict(), folder / "weights.pth")
    back = weights.load(name, folder / "weights.pth").variables
    same = jax.tree.map(np.array_equal, back, variables)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    bits = "the same" if all(jax.tree.leaves(same)) else "OTHERS"
    return f"| {name} | {library} {constructor} | strict | {error:.1e} | {bits} |"


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def check_files(folder: Path) -> list[str]:
    """What torch's files can do wrong."""
    lines, tensors = [], {"fc.weight": torch.arange(6.0).reshape(2, 3)}

    def refused(what: str, path: Path) -> None:
        try:
            files.read_torch(path)
            lines.append(f"- {what}: TAKEN")
        except InputError as error:
            lines.append(f"- {what}: refused, {str(error).replace(str(path), path.name)!r}")

    path = folder / "code.pth"
    for zipped in (True, False):
        Code.trace = folder / "trace"
        torch.save({**tensors, "more": Code()}, path, _use_new_zipfile_serialization=zipped)
        refused(f"a pickle with code in it{'' if zipped else ', of the old format'}", path)
        lines.append(f"  - it was run: {Code.trace.exists()}")
        torch.load(path, weights_only=False)  # the control: it is a program indeed
        lines.append(f"  - it was run where `weights_only=False`: {Code.trace.exists()}")
        Code.trace.unlink()
    for zipped in (True, False):
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[:-200])
        refused(f"a file cut short{'' if zipped else ', of the old format'}", path)
    for zipped in (True, False):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            halves = {"fc.weight": tensors["fc.weight"].to(dtype)}
            torch.save(halves, path, _use_new_zipfile_serialization=zipped)
            read = files.read_torch(path)["fc.weight"]
            files.write_torch(folder / "again.pth", {"fc.weight": read})
            again = torch.load(folder / "again.pth", weights_only=True)["fc.weight"]
            same = again.dtype == dtype and torch.equal(again, halves["fc.weight"])
            what = f"{dtype}{'' if zipped else ', old format'}"
            lines.append(f"- {what}: read as {read.dtype}, written back the same: {same}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="models; all with public weights if none")
    names = parser.parse_args().names
    packages = " ".join(f"{p} {version(p)}" for p in ("torch", "torchvision", "timm", "jax", "flax"))
    print(f"# Our exports in the reference libraries\n\n`python check_exports.py`, with {packages}\n")
    print("| model | reference | load_state_dict | relative error of scores | bits of a .pth |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for (name, library, constructor), settings in rows().items():
            if not names or name in names:
                print(check(name, library, constructor, settings, Path(folder)), flush=True)
        print("\nFiles that torch wrote:\n")
        print("\n".join(check_files(Path(folder))))


if __name__ == "__main__":
    main()
