"""The inference form of a trained model (section 4.3): tables, without phases and without BatchNorms."""
