"""Learning problems: data in, loss, metrics, pictures out. One package a problem; what they share lies here."""
