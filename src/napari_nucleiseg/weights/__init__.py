"""Weight files shipped with the package, with their cards inside."""
