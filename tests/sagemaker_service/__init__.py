"""A double of the SageMaker training service: moto's server, and a runner that executes the jobs.

Imported as ``sagemaker_service``: a conftest puts ``tests/`` at the end of ``sys.path``.
"""
