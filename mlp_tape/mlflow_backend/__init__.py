"""What runs inside the MLflow process, and the tools that need MLflow."""
