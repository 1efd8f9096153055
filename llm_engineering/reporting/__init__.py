"""Reports: the manifest, the metrics, the model card and report.html of a run."""
