"""`main` of femur3d.infer in this process, many times: a model is loaded and its graphs are traced once."""

from __future__ import annotations

import functools

from absl import flags

from femur3d import infer
from femur3d.inference.saved_model import load_model
from femur3d.inference.segmenter import Segmenter


def run_main(*words):
    """Calls `infer.main` with these flags and the default of every other one; returns its exit code."""
    flags.FLAGS.unparse_flags()
    for flag in infer.FLAGS.flags_by_module_dict()["femur3d.infer"]:
        flag.value = flag.default
    return infer.main(flags.FLAGS(["infer", *map(str, words)]))


def load_once(monkeypatch):
    """Has `infer` keep what it loads, until the files of the model change."""
    monkeypatch.setattr(infer, "load_model", _load_unless_changed)
    monkeypatch.setattr(infer, "Segmenter", _segmenter)


def _load_unless_changed(folder):
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _load(folder, tuple((path.name, path.read_bytes()) for path in files))


@functools.lru_cache(maxsize=16)
def _load(folder, files):
    return load_model(folder)


def _segmenter(model, engine, mode):
    return _segmenter_of(model, _ENGINES.setdefault(type(engine), engine), mode)


_segmenter_of = functools.lru_cache(maxsize=16)(Segmenter)
_ENGINES = {}
