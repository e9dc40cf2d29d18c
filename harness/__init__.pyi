"""The public names, read by type checkers and by ``__init__.py``, which imports each name on first use."""

from harness.analysis.table import Table as Table
from harness.api import Results as Results
from harness.api import load as load
from harness.api import run as run
from harness.data.holdout import holdout as holdout
from harness.data.install import installed as installed
from harness.data.lines import read_lines as read_lines
from harness.errors import BadResultError as BadResultError
from harness.errors import CombinationError as CombinationError
from harness.errors import DataError as DataError
from harness.errors import HarnessError as HarnessError
from harness.errors import PluginError as PluginError
from harness.errors import RecordError as RecordError
from harness.errors import UnknownNameError as UnknownNameError
from harness.errors import UnsupportedError as UnsupportedError
from harness.errors import UsageError as UsageError
from harness.interfaces import Backend as Backend
from harness.interfaces import Batch as Batch
from harness.interfaces import Binding as Binding
from harness.interfaces import Dataset as Dataset
from harness.interfaces import DeviceInfo as DeviceInfo
from harness.interfaces import Metric as Metric
from harness.interfaces import Model as Model
from harness.interfaces import Network as Network
from harness.interfaces import NetworkRef as NetworkRef
from harness.interfaces import NoOptions as NoOptions
from harness.interfaces import Parameter as Parameter
from harness.interfaces import PreparedData as PreparedData
from harness.interfaces import RawData as RawData
from harness.interfaces import RawInput as RawInput
from harness.interfaces import Reporter as Reporter
from harness.interfaces import RooflineKernels as RooflineKernels
from harness.interfaces import SeededSplit as SeededSplit
from harness.interfaces import Session as Session
from harness.interfaces import SessionRequest as SessionRequest
from harness.interfaces import Split as Split
from harness.interfaces import Task as Task
from harness.interfaces.remote import RemoteFile as RemoteFile
from harness.plugins.hookspecs import API_VERSION as API_VERSION
from harness.plugins.hookspecs import hookimpl as hookimpl
from harness.records import IGNORED as IGNORED
from harness.records import DataInfo as DataInfo
from harness.records import DeviceMemory as DeviceMemory
from harness.records import EpochEnded as EpochEnded
from harness.records import Failure as Failure
from harness.records import InputSpec as InputSpec
from harness.records import Protocol as Protocol
from harness.records import Recipe as Recipe
from harness.records import RunRecord as RunRecord
from harness.records import RunSpec as RunSpec
from harness.records import Success as Success
from harness.records.store import StoredRun as StoredRun
from harness.report.report import Report as Report

__all__: list[str]
__version__: str
