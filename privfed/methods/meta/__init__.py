"""What meta-learned methods share: models, episodes, adaptation."""
