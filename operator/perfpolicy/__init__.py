"""One PerformancePolicy per service, reconciled into mesh, security and alert objects, with a status that can be trusted."""

__version__ = "0.1.0"
