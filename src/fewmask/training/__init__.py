"""The one training loop, its launch, checkpoints and log. Lightning Fabric stays in here."""
