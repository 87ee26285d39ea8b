"""What Feast's universal tests read to know which stores to run on: ours online, files and DuckDB offline.

Feast marks some of its tests with the stores that they were written for (``only=["redis"]``). Those whose subject is
not that store hold for any, so ours answers to these names too. It is a pytest plug-in as well, see :class:`_Absent`.
"""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Literal

from materialize.online_store import PinfeatherOnlineStore, PinfeatherOnlineStoreConfig

TYPE = "pinfeather_repo_configuration.UniversalOnlineStore"
NAMES = ("sqlite", "redis", "mongodb", "milvus", "pgvector")
CLOUD = ("boto3", "botocore", "deltalake", "google.cloud", "keycloak", "minio", "testcontainers")


class _Absent(MetaPathFinder, Loader):
    """Lets Feast's tests import the clients of other stores where they are not installed; none of them is called."""

    def find_spec(self, name, path, target=None):
        if name in CLOUD or name.startswith(tuple(f"{package}." for package in CLOUD)):
            return ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__getattr__ = lambda name: type(name, (Exception,), {"__module__": module.__name__})


sys.meta_path.append(_Absent())


class UniversalOnlineStoreConfig(PinfeatherOnlineStoreConfig):
    """Our configuration and the one key of other stores that a test sets."""

    type: Literal["pinfeather_repo_configuration.UniversalOnlineStore"] = TYPE
    vector_enabled: bool = True


class UniversalOnlineStore(PinfeatherOnlineStore):
    """Our store; Feast wants it beside its configuration."""


class _OneStore(dict):
    """One store under several names, run once by a test that takes every store."""

    def values(self):
        return list(super().values())[:1]


STORE = {"type": TYPE}
if url := os.environ.get("QDRANT_URL"):
    STORE["url"] = url
else:
    STORE["path"] = os.environ.get("ONLINE_STORE_PATH", "data/online")
AVAILABLE_ONLINE_STORES = _OneStore({name: (STORE, None) for name in NAMES})


def __getattr__(name):
    # Feast's modules are there only once the _Absent ones are.
    if name != "AVAILABLE_OFFLINE_STORES":
        raise AttributeError(name)
    from tests.universal.feature_repos.duckdb_repo_configuration import DuckDBDataSourceCreator
    from tests.universal.feature_repos.universal.data_sources.file import FileDataSourceCreator

    return [("local", FileDataSourceCreator), ("local", DuckDBDataSourceCreator)]


def pytest_collection_finish(session):
    """Feast's configuration leaves out cloud stores while this is True; some tests would return at once."""
    os.environ["FEAST_IS_LOCAL_TEST"] = "False"
