"""Models: encoders, the student's head and bundle, training and evaluation."""
