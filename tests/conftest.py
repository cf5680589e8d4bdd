from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import skips, stream_bundle, tiny_bundle

# Nothing is measured where a test does not ask for it: what `auto` takes is tested on its own.
os.environ.setdefault("AVSBG_BACKEND", "onnxruntime")
os.environ.setdefault("AVSBG_RATE", "1")

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("avsbg", deadline=None)
hypothesis.settings.load_profile("avsbg")

SLOW_MARKERS = ("engine", "native", "slow")
# They export or train a network.
SLOW_FIXTURES = {"export_once", "uninterrupted"}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle; tests do not change it."""
    return tiny_bundle.make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle where it takes audio embeddings, as the scope `model` wants; it has no test vectors."""
    return tiny_bundle.make_bundle(tmp_path_factory.mktemp("bundles") / "embedding", audio="audio_embedding")


@pytest.fixture(scope="session")
def tiny_stream(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with the graphs of a stream, which show what they were given."""
    return stream_bundle.make_stream_bundle(tmp_path_factory.mktemp("bundles") / "stream")


@pytest.fixture
def bundle_copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle for tests that damage it."""
    return Path(shutil.copytree(tiny.path, tmp_path / "copy"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what rests on a slow fixture; where workers share the files, the slowest come first."""
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    ranks: dict[Path, int] = {}
    for item in items:
        rank = min(
            (k for k, name in enumerate(SLOW_MARKERS) if item.get_closest_marker(name)), default=len(SLOW_MARKERS)
        )
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


def pytest_collection_finish() -> None:
    """Keep the garbage collector from the modules and tests, which stay to the end."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the skips that the committed list does not allow."""
    if unlisted := _unlisted_skips(terminalreporter):
        terminalreporter.section(f"skipped for reasons that {skips.LIST.name} does not list")
        terminalreporter.write_line("\n".join(unlisted))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run that skipped for a reason that is not listed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and _unlisted_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unlisted_skips(reporter: pytest.TerminalReporter) -> list[str]:
    reports = reporter.stats.get("skipped", [])
    pairs = [(report.nodeid, report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)]
    return skips.unlisted(pairs, skips.allowed_reasons())
