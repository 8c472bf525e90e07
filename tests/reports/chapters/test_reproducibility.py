"""How to repeat a run: its command, settings, versions and hashes, and each time the test split was opened."""

from __future__ import annotations

from in_chapter import facts, notes, results_of, texts

from reports.blocks import Code, walk
from reports.chapters.reproducibility import chapter
from sweep.run_folder import RunPaths


def test_command_settings_versions_and_hashes_are_those_of_the_records(write_run):
    found = chapter(results_of(write_run(sweep={"set": {"lr": 0.01}})))
    (code,) = (block for block in walk(found) if isinstance(block, Code))
    assert code.text.startswith("python -m sweep.run --space partial_unfreeze --data xrays/manifest.csv")
    rows = facts(found)
    assert rows["Data fingerprint"] == "ab12" * 16
    assert rows["packages.torch"] == "2.15.0"
    assert rows["memory"] == "32.0 GiB"
    assert rows["set.lr"] == "0.01"
    assert rows["scheduler"] == "asha"
    assert "Without --deterministic" in texts(found)


def test_a_deterministic_run_is_called_so(write_run):
    assert "Deterministic, seed 3" in texts(chapter(results_of(write_run(sweep={"deterministic": True}))))


def test_every_opening_of_the_test_split_is_listed(write_run):
    rows = facts(chapter(results_of(write_run(finals={}))))
    assert rows["2026-01-05 11:20 UTC"] == "169 images, winner t0000, finalists t0000, t0003, t0001"
    assert "test_access" not in texts(chapter(results_of(write_run("closed", finals={"opened": 0}))))


def test_what_is_missing_is_told(write_run):
    root = write_run(sweep={"command": None})
    RunPaths(root).provenance.unlink()
    found = notes(chapter(results_of(root)))
    assert "does not contain the command" in found
    assert "provenance.json is missing" in found
