"""What is trained: classification and detection, each with its loss and its scores."""
