"""What encoders attend to on tissue: maps of each head, what they are scaled to, put together and compared with."""
