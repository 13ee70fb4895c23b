"""`fgvce why`: photographs, a folder of references, and an answer for each."""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fgvce_jax.ask import as_seen, label_of, why
from fgvce_jax.bank import Bank, build_bank
from fgvce_jax.bank_file import Skipped, open_bank
from fgvce_jax.clock import Clock
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.data.decode import decode
from fgvce_jax.data.folder import Folder
from fgvce_jax.data.labels import dataset_fingerprint, match_labels
from fgvce_jax.data.pipeline import image_loader, preprocess
from fgvce_jax.display.card import Card
from fgvce_jax.errors import InputError
from fgvce_jax.files import fingerprint, user_cache, whole_file, writing
from fgvce_jax.models import Classifier, load_classifier
from fgvce_jax.models.checkpoint import read_class_names
from fgvce_jax.progress import notify, stage

_BATCH = 32


def explain_photographs(
    photos: Sequence[str],
    references: str,
    model: str,
    label: str | None = None,
    out: str = "fgvce-why",
    bank_file: str | None = None,
    class_names: str | None = None,
    per_class: int = BankConfig.per_class,
    evidence: str = SearchConfig.evidence,
) -> str:
    """Explain photographs.

    Args:
        photos: Photographs: files, patterns such as 'holiday/*.jpg', or - for standard input, which
            is a photograph or a list of files, one a line.
        references: A folder of photographs of the classes that may be the answer, one sub-folder a
            class; all of its images are used, whether they lie under train, val or test or not.
        model: The classifier, a checkpoint folder.
        label: The class that it should have been: name, WordNet id or number. By default the most
            probable class but the predicted one, of those that have references.
        out: Folder of the cards, a PNG and an HTML file for each photograph.
        bank_file: Where the candidate cells of the references are kept, so that the next question
            is answered at once; by default in the user's cache folder.
        class_names: A text file with a name a line, or "imagenet"; by default the checkpoint's.
        per_class: Correctly classified reference images of each class.
        evidence: "predicted" or "margin", as in `fgvce explain --help`.

    Returns:
        The answers.

    Raises:
        InputError: Whatever of it cannot be used; nothing is written then but the bank.
    """
    clock = Clock()
    search = SearchConfig(evidence=evidence)  # pyright: ignore[reportArgumentType]
    with clock("classifier"):
        names = None if class_names is None else read_class_names(class_names)
        clf = load_classifier(model, class_names=names)
        number = label_of(clf, label)
    with clock("photographs"):
        images = _read(clf, photos)
    with clock("references"):
        bank = _bank(clf, Path(references).expanduser(), bank_file, model, per_class)
    answers, cards = {}, {}
    with clock("answers"):
        for name, pixels in images.items():
            explanation = why(clf, pixels, bank, number, search)
            answers[name], cards[name] = repr(explanation), explanation.card()
    with clock("cards"):
        files = _write(Path(out), cards)
    notify(", ".join(f"{name} {s:.1f} s" for name, s in clock.seconds.items()))
    return "\n\n".join(
        f"{name}\n{_indented(answers[name])}\n  card: {files[name]}" for name in answers
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


# --- photographs --------------------------------------------------------------------------------


def _read(clf: Classifier, photos: Sequence[str]) -> dict[str, Float[np.ndarray, "S S 3"]]:
    """Each photograph as the classifier takes it, by its name, in order and each once."""
    images = {}
    for photo in photos:
        found = _from_input(sys.stdin.buffer.read()) if photo == "-" else _matching(photo)
        if isinstance(found, bytes):
            images["stdin"] = as_seen(clf, decode(found, "from standard input"))
        else:
            images |= {name: as_seen(clf, name, name) for name in found}
    return images


def _from_input(content: bytes) -> bytes | list[str]:
    """A photograph's bytes, which no list of names resembles; or the files of such a list."""
    if not content:
        raise InputError("standard input: expected a photograph or a list of files, got nothing")
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return content
    if b"\0" in content:
        return content
    return [name for line in lines if line.strip() for name in _matching(line.strip())]


def _matching(pattern: str) -> list[str]:
    """The files of a name, or of a pattern that is none."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        raise InputError(f"photo {pattern}: expected a file or a pattern such as {pattern}/*.jpg")
    if path.exists() or not glob.has_magic(pattern):
        if "://" in pattern:
            raise InputError(f"photo {pattern}: expected a file, got an address")
        return [str(path)]
    if not (found := sorted(filter(_is_file, glob.glob(str(path), recursive=True)))):
        raise InputError(f"photo {pattern}: expected a file, found none of such a name")
    return found


def _is_file(name: str) -> bool:
    return Path(name).is_file()


# --- references ---------------------------------------------------------------------------------


def _bank(clf: Classifier, references: Path, file: str | None, model: str, per_class: int) -> Bank:
    """The candidates of all images of a folder, from the file where they are kept if it fits."""
    folders = _splits(references)
    config = BankConfig(per_class=per_class, sigma=SearchConfig.sigma)
    classes = match_labels(folders[0], clf)
    for note in (classes.note, *folders[0].notes):
        if note:
            notify(note)
    pictures = _Joined(folders)
    labels = np.concatenate([match_labels(folder, clf).labels for folder in folders])

    def build() -> tuple[Bank, Skipped]:
        skipped = []
        load = image_loader(
            pictures,
            _BATCH,
            clf.image_size,
            clf.resize_to,
            on_skip=lambda error: skipped.append({"id": error.id, "why": error.why}),
        )
        wanted = per_class * len(np.unique(labels))
        with stage("Collecting references", wanted) as advance:
            bank = build_bank(clf, load, labels, config, batch_size=_BATCH, advance=advance)
        return bank, skipped

    stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in pictures.paths]
    key = {
        "classifier": fingerprint(clf.spec, clf.image_size, clf.resize_to, clf),
        "references": dataset_fingerprint(pictures.ids, labels),
        "files": fingerprint(stamps),
        **asdict(config),
    }
    bank, skipped = open_bank(_bank_path(references, file, model, config), key, build)
    _tell(clf, bank, labels, skipped)

    def picture(index: int) -> np.ndarray:
        return preprocess(pictures[index].image, clf.image_size, clf.resize_to)

    return bank.with_pictures(picture)


def _splits(references: Path) -> list[Folder]:
    """All of a folder's images: of those splits that it has, or the one that takes all."""
    found = []
    for split in ("train", "val", "test"):
        if (references / split).is_dir():
            found.append(Folder(split, references, test_share=0.0))
    return found or [Folder("train", references, test_share=0.0)]


class _Joined:
    """Several splits of a folder as one dataset."""

    keypoint_names: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()

    def __init__(self, folders: Sequence[Folder]):
        self.class_names = folders[0].class_names
        self._places = [(folder, i) for folder in folders for i in range(len(folder))]
        self.ids: Sequence[str] = [folder.ids[i] for folder, i in self._places]
        self.labels = np.concatenate([folder.labels for folder in folders])
        self.paths = [folder.path / folder.ids[i] for folder, i in self._places]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        folder, i = self._places[index]
        return folder[i]


def _bank_path(references: Path, file: str | None, model: str, config: BankConfig) -> Path:
    if file is not None:
        return Path(file).expanduser()
    name = fingerprint(str(references.resolve()), str(Path(model).resolve()), asdict(config))
    folder = user_cache() / "banks"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.npz"


def _tell(clf: Classifier, bank: Bank, labels: np.ndarray, skipped: Skipped) -> None:
    """Notes on references that are few, missing or cannot be read."""
    for image in skipped:
        notify(f"skipped reference image {image['id']}: {image['why']}")
    counts = np.asarray(bank.references)
    for k in np.unique(labels):
        if counts[k] < min(2, bank.config.per_class):
            found = ("none", "one")[counts[k]]
            total = int((labels == k).sum())
            notify(
                f"class {clf.class_names[k]}: {found} of {total} reference images is classified "
                f"correctly, {bank.config.per_class} are better"
            )


# --- cards --------------------------------------------------------------------------------------


def _write(out: Path, cards: dict[str, Card]) -> dict[str, str]:
    """A PNG and an HTML file for each card; the names of both, by the photograph's."""
    from fgvce_jax.display.figure import card_figure
    from fgvce_jax.display.html import card_page

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    files, taken = {}, set()
    for name, card in cards.items():
        stem = Path(name).stem
        number = next(k for k in range(1, len(cards) + 2) if (stem, k) not in taken)
        taken.add((stem, number))
        path = out / (stem if number == 1 else f"{stem}-{number}")
        with whole_file(path.with_name(f"{path.name}.png")) as file:
            card_figure(card).savefig(file, format="png", dpi=110)
        with whole_file(path.with_name(f"{path.name}.html")) as file:
            file.write(card_page({name: card}).encode())
        files[name] = f"{path}.png, {path}.html"
    return files
