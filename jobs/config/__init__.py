"""What a run is told: the run file and the models that come along."""
