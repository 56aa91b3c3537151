"""Saving and loading relation components."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import srsly
from spacy import util
from spacy.pipeline import TrainablePipe

from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.settings import CHANGEABLE, LABEL_SETTINGS, ExtractorSettings
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import read_files, write_files
from spacy_slmre.util.json_files import check_fields, read_record


class SavedAsFolder:
    """A component whose bytes are those of the files that `to_disk` writes."""

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        """Read the result of `to_disk`."""
        return self._read(path, exclude)

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return labels, changed settings and the model as bytes."""
        with tempfile.TemporaryDirectory() as folder:
            self.to_disk(folder, exclude=exclude)
            return srsly.msgpack_dumps(read_files(Path(folder)))

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Read the result of `to_bytes`."""
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), srsly.msgpack_loads(bytes_data))
            return self._read(folder, exclude, temporary=True)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the component in a folder."""
        raise NotImplementedError

    def _read(self, path: str | Path, exclude: Iterable[str], *, temporary: bool = False) -> Self:
        """Read a folder, which may be deleted afterwards if it is temporary."""
        raise NotImplementedError


class SavedExtractor(SavedAsFolder, TrainablePipe):
    """The serialization of `RelationExtractor`: labels, changed settings and the model."""

    name: str
    model: RelationModel
    settings: ExtractorSettings
    weights: str
    _schema: LabelSchema | None
    _schema_was_set: bool
    _label_weights: dict[str, float]

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write labels, changed settings and the model to a folder."""
        writers = {
            "cfg.json": lambda file: srsly.write_json(file, self._get_config()),
            "model": lambda folder: self.model.save(folder, embed=self.weights == "embed"),
        }
        util.to_disk(path, writers, exclude)

    def _read(self, path: str | Path, exclude: Iterable[str], *, temporary: bool = False) -> Self:
        readers = {
            "cfg.json": lambda file: read_record(file, lambda data: self._set_config(data, from_bytes=temporary)),
            "model": lambda folder: setattr(self, "model", self.model.restore(folder, temporary=temporary)),
        }
        util.from_disk(path, readers, exclude)
        return self

    def _get_config(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_dict(),
            "has_own_labels": self.has_own_labels,
            "label_weights": self._label_weights,
            **{name: getattr(self, name) for name in CHANGEABLE},
            "configured": self.settings.to_dict(),
        }

    def _set_config(self, config: Mapping[str, Any], *, from_bytes: bool) -> None:
        # A config that was changed or overridden after saving takes precedence.
        check_fields(config, configured=dict, schema=dict, has_own_labels=bool, label_weights=dict)
        check_fields(config["label_weights"], **dict.fromkeys(config["label_weights"], (float, int)))
        before, now = config["configured"], self.settings.to_dict()
        same = {name for name in now if now[name] == before[name] or from_bytes}
        if set(LABEL_SETTINGS) <= same:
            self._schema = LabelSchema.from_dict(config["schema"]).extend_types(self.settings.type_map)
            self._schema_was_set = config["has_own_labels"]
            self._label_weights = config["label_weights"]
        saved = {name: config[name] for name in same & set(CHANGEABLE)}
        replace(self.settings, **saved).check(self.name)
        for name, value in saved.items():
            setattr(self, name, value)
        self._check_thresholds()

    @property
    def schema(self) -> LabelSchema:
        """The labels."""
        raise NotImplementedError

    @property
    def has_own_labels(self) -> bool:
        """Whether labels were configured, added or learned."""
        raise NotImplementedError

    def _check_thresholds(self) -> None:
        raise NotImplementedError
