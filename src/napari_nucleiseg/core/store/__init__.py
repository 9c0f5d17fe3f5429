"""The slide's project on disk: labels, maps, ledger."""
