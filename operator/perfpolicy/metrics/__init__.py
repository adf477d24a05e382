"""The only code that talks to Prometheus. Answers are handed on unjudged (evaluate/observation.py does that), or MetricsUnavailable."""
